"""Pre-training as a masked autoencoder."""
