"""Training: prompts simulated inside the step, losses, and what is built on them."""
