"""Sequences behind a prefix of learned vectors, which passes through the model once for all."""
