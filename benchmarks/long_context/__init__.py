"""The long-context benchmark: `python -m benchmarks.long_context`."""
