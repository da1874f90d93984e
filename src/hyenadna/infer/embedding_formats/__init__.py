"""The files that embeddings are written to, one module each."""
