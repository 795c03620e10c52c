"""What `sam-jax bench` measures: tasks, readings in turn, the machine, the table."""
