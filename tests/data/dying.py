"""A process that dies at a step of its writing, without the time to clean up."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path


class Dead(BaseException):
    """The process is no more: nothing it does from now on has an effect."""


@contextmanager
def killed_at(step: int, monkeypatch):
    """Die at the given step: before a flush, a renaming or a removal."""
    count = 0
    with monkeypatch.context() as patch:

        def mortal(real):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count >= step:
                    raise Dead
                return real(*args, **kwargs)

            return call

        patch.setattr(os, "replace", mortal(os.replace))
        patch.setattr(os, "rename", mortal(os.rename))
        patch.setattr(os, "fsync", mortal(lambda handle: None))
        patch.setattr(os, "sync", mortal(lambda: None))
        patch.setattr(Path, "unlink", mortal(Path.unlink))
        patch.setattr(shutil, "rmtree", mortal(shutil.rmtree))
        yield
