"""Embeddings: unit vectors, verification of pairs, labelled pairs."""
