"""Training data: readers, procedural scenes, and the batches that both make."""
