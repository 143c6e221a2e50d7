"""One command for a GPU: the tests marked `gpu`, then figures side by side with open_clip and transformers.

`python -m benchmarks.gpu --out DIR` needs no network and installs nothing. Each part has a process and a time limit of
its own, and what it measured so far is on disk after each figure, so that a failure or a kill costs only what is left.
"""
