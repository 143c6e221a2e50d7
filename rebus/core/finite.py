"""NaN and infinity never become an answer."""

import torch
from torch import Tensor

from rebus.core.errors import NotFinite


def check_finite(rows: Tensor, what: str, dtype: torch.dtype) -> None:
    """Raise `NotFinite` for the first row (B, …) that holds NaN or an infinity. `what` with `{}` names it by number;
    `dtype`: what the network computed in."""
    bad = (~rows.isfinite()).flatten(1).any(dim=1)
    if bool(bad.any()):
        refuse(what.format(int(bad.nonzero()[0, 0])), dtype)


def refuse(what: str, dtype: torch.dtype) -> None:
    """Raise `NotFinite`."""
    name = str(dtype).removeprefix("torch.")
    most = f"{name} ends at {torch.finfo(dtype).max:,.0f}; " if dtype == torch.float16 else ""
    wider = "float32" if dtype == torch.bfloat16 else "bfloat16 or float32"
    hint = "its weights may be damaged" if dtype == torch.float32 else f"load the model with dtype {wider}"
    raise NotFinite(f"{what}: the network's output in {name} is NaN or infinite; {most}{hint}")
