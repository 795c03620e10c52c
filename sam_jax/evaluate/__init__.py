"""Evaluation by the protocols of the paper."""
