"""Linen modules, NHWC, named as the paper names the parts."""
