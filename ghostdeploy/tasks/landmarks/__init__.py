"""Landmarks: points out of a network's numbers, their error over a recorded length, labelled sets, pictures."""
