"""Plans memory: where every byte of a step lives, and an independent check of that."""

from pockc.plan.memory import (
    EntryMemory,
    MemoryReport,
    StateMemory,
    kernel_calls,
    memory_report,
    report_data,
)
from pockc.plan.planner import make_plan
from pockc.plan.types import (
    ALIGN_BYTES,
    COPY_KERNEL,
    SCALARS,
    Call,
    Constant,
    Entry,
    EntryPlan,
    InputPort,
    OutputPort,
    Place,
    Plan,
    Space,
    StateKey,
    StateLayout,
    StateSlot,
    Step,
)
from pockc.plan.verify import plan_problems, verify_plan

__all__ = [
    "ALIGN_BYTES",
    "COPY_KERNEL",
    "SCALARS",
    "Call",
    "Constant",
    "Entry",
    "EntryMemory",
    "EntryPlan",
    "InputPort",
    "MemoryReport",
    "OutputPort",
    "Place",
    "Plan",
    "Space",
    "StateKey",
    "StateLayout",
    "StateMemory",
    "StateSlot",
    "Step",
    "kernel_calls",
    "make_plan",
    "memory_report",
    "plan_problems",
    "report_data",
    "verify_plan",
]
