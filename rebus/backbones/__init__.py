"""Networks of one input, pretrained alone, reused by many models."""
