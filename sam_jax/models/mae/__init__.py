"""The masked autoencoder that pre-trains an image encoder."""
