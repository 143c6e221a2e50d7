"""Measurements: scripts, and `python -m benchmarks.gpu`."""
