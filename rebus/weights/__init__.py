"""Find, download, verify and rename checkpoints."""
