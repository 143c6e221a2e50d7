"""Labels of training: by which names they stand in a batch, and what stands where no token is to be predicted."""

IGNORED = -100  # the value that cross entropy in PyTorch leaves out by default
OF_READERS = frozenset({"blanks", "fits", "scores"})  # what `rebus.objectives` compares with an encoder's answers
