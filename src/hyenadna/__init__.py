"""hyenadna."""
