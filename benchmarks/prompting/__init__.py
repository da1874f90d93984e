"""Soft prompts and few shots on real tasks, and what the shared prefix saves."""
