"""Time, memory and cost of a training run, before it starts.

The real network and objective run one step on meta tensors (`trace`), whose FLOPs and bytes are recorded (`recorder`)
and cached (`trace_cache`). `memory` divides them among GPUs, and `plan` computes steps, time and money.
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
