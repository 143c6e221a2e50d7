"""The label of a position whose token is not to be predicted."""

IGNORED = -100  # what cross entropy passes over in PyTorch unless told otherwise, and in released training code
