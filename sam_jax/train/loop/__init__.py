"""A run: state, optimizer, schedule, update, checkpoints, log and the loop around them."""
