"""The benchmark of generation: `python -m benchmarks.generation`."""
