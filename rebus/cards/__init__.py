"""The published checkpoints of a system each, as rows of the catalogue: plain data, free of torch."""
