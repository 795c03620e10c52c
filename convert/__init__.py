"""PyTorch checkpoints -> sam_jax checkpoints, and back. The only place that knows torch key names."""
