"""Before a training: how long, how much memory, how much money.

The real network and objective take one step on tensors without values (`trace`), whose FLOPs and bytes are recorded
(`recorder`) and stored (`trace_cache`). `memory` divides them among GPUs, and `plan` puts steps, time and money on it.
"""

from rebus.plan.datasets import DATA as DATA
from rebus.plan.datasets import read_count as read_count
from rebus.plan.datasets import read_data as read_data
from rebus.plan.hardware import GPUS as GPUS
from rebus.plan.hardware import read_gpus as read_gpus
from rebus.plan.plan import Plan as Plan
from rebus.plan.plan import Settings as Settings
from rebus.plan.plan import plan as plan
from rebus.plan.step import Learning as Learning
