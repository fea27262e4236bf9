"""Finds what to train within a memory and a time budget: costs, contributions, search."""

from pockc.search.cost import Cost, cost_of
from pockc.search.estimate import Estimator
from pockc.search.kernel_times import KernelTimes
from pockc.search.space import Space, make_space

__all__ = ["Cost", "Estimator", "KernelTimes", "Space", "cost_of", "make_space"]
