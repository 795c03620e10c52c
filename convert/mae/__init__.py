"""Masked autoencoders: names."""
