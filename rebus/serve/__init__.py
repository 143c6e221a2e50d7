"""Models over HTTP, and many requests to one model at once.

batcher.py         `Batcher`: submit a task, get a ticket; one thread computes
continuous.py      answers that are generated together, and join and leave between steps
jobs.py            everything else, in batches of what has come meanwhile
feature_cache.py   image features by the hash of their pixels
tickets.py         an answer on its way
"""

from rebus.serve.batcher import Batcher
from rebus.serve.tickets import Cancelled, OutOfMemory, QueueFull, Ticket, TooLate

__all__ = ["Batcher", "Cancelled", "OutOfMemory", "QueueFull", "Ticket", "TooLate"]
