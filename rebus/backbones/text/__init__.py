"""Networks that read and write."""
