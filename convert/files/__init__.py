"""Files of weights: read without PyTorch, written for it."""
