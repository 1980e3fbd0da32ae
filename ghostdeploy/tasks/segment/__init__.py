"""Segmentation: masks out of logits, mean intersection over union, labelled masks, pictures."""
