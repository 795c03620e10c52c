"""Automatic mask generation: everything in an image, from a grid of points."""
