"""Which parameters, and which of their channels, are trained: configuration, rules, presets."""

from pockc.scheme.config import Channels, Config, Loss, Optimizer, Rule, load_config
from pockc.scheme.report import (
    Cost,
    Saving,
    measure,
    savings,
    savings_data,
    scheme_data,
)
from pockc.scheme.resolve import recomputed_modules, resolve
from pockc.scheme.scheme import Scheme, Trained

__all__ = [
    "Channels",
    "Config",
    "Cost",
    "Loss",
    "Optimizer",
    "Rule",
    "Saving",
    "Scheme",
    "Trained",
    "load_config",
    "measure",
    "recomputed_modules",
    "resolve",
    "savings",
    "savings_data",
    "scheme_data",
]
