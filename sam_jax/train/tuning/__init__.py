"""Fine-tuning: a part of a model, or low-rank updates of it."""
