"""Soft prompts: learned vectors in front of every sequence of a model that stays as it is."""
