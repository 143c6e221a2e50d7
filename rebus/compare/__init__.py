"""Several models on the same images: what each answers, how good, how fast, in how much memory.

Each model runs in a process of its own (`worker`), so that its cold start and peak memory are its own, and so that one
that fails leaves the others alone. `scoring` says how much two answers agree and how right one is,
`rebus.evaluate.paired` what may be concluded from it, `page` shows it all.
"""

from rebus.compare.comparison import Comparison, compare
from rebus.compare.question import Question

__all__ = ["Comparison", "Question", "compare"]
