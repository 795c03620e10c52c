"""Compiled programs: images and prompts in the model's own frame, in batches of few shapes."""
