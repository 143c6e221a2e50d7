"""Files on disk, and worlds drawn on the fly, as training and test data."""
