"""PyTorch checkpoints -> sam_jax checkpoints, and back; the only place that knows torch names."""

from convert.conversion import convert_checkpoint, export_checkpoint, read_source

__all__ = ["convert_checkpoint", "export_checkpoint", "read_source"]
