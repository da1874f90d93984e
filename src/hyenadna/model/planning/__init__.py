"""What a pass or a training step takes on a machine: memory, work, what ranks tell each other."""
