"""What a scheme must know of a model. The frontend's records have these attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pockc.ir.types import TensorType


class ParamFacts(Protocol):
    """A parameter that the loss depends on."""

    @property
    def name(self) -> str:
        """Qualified name."""

    @property
    def type(self) -> TensorType:
        """Shape and element type."""

    @property
    def module(self) -> str:
        """Qualified name of the module that owns it."""

    @property
    def module_type(self) -> str:
        """Class name of that module."""

    @property
    def kind(self) -> str:
        """Either "bias" or "weight"."""

    @property
    def first_use(self) -> int:
        """Position of its first use in the forward pass."""


class ModuleFacts(Protocol):
    """A module of the model."""

    @property
    def name(self) -> str:
        """Qualified name, "" for the model itself."""

    @property
    def type(self) -> str:
        """Class name."""

    @property
    def facts(self) -> Mapping[str, int]:
        """Numbers about attention heads: num_heads, num_key_value_heads, head_dim."""


Parameters = Mapping[str, ParamFacts]
