"""Which parameters, and which of their channels, are trained: configuration, rules, presets."""

from pockc.scheme.config import Channels, Config, Loss, Optimizer, Rule, load_config
from pockc.scheme.resolve import resolve
from pockc.scheme.scheme import Scheme, Trained

__all__ = [
    "Channels",
    "Config",
    "Loss",
    "Optimizer",
    "Rule",
    "Scheme",
    "Trained",
    "load_config",
    "resolve",
]
