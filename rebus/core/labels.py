"""Labels of training: what stands where no token is to be predicted."""

IGNORED = -100  # the value that cross entropy in PyTorch leaves out by default
