"""What the verbs of the workbench cost, and what their results say on real data."""
