"""One sequence over several processes: each holds a stretch of positions."""
