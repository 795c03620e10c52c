"""Interactive training: simulated prompts, passes and losses."""
