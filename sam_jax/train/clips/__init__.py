"""Training SAM 2 on clips."""
