"""Labels: what stands where no token is to be predicted, and one spelling for the names of things."""

IGNORED = -100  # the value that cross entropy in PyTorch leaves out by default


def plain_label(name: str) -> str:
    """A label as a sentence has it: of "Baby_Buggy" and "baby buggy." the same, "a/b" is "a or b"."""
    return name.replace("_", " ").replace("/", " or ").lower().strip().removesuffix(".")
