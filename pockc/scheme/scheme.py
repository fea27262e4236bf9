"""The scheme: what is trained of each parameter, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Trained:
    """How one parameter is trained.

    Attributes:
        selection: An axis and the indices along it that are trained, ascending; None for all.
        lr_scale: The learning rate is multiplied by it.
        weight_decay: Instead of the optimizer's, None to leave that.
        because: The rule or preset that decided.
    """

    selection: tuple[int, tuple[int, ...]] | None = None
    lr_scale: float = 1.0
    weight_decay: float | None = None
    because: str = field(default="", compare=False)

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what is trained of a parameter of shape `whole`."""
        if self.selection is None:
            return whole
        axis, indices = self.selection
        return (*whole[:axis], len(indices), *whole[axis + 1 :])


@dataclass(frozen=True)
class Scheme:
    """What is trained, in the model's order; parameters that are not here are frozen.

    Attributes:
        trained: How each of them is trained.
        origin: Where a published scheme is from, and whether that was checked; else empty.
    """

    trained: Mapping[str, Trained]
    origin: str = field(default="", compare=False)

    @cached_property
    def names(self) -> frozenset[str]:
        """The parameters that are trained, in whole or in part."""
        return frozenset(self.trained)

    @cached_property
    def selections(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Axis and indices of the parameters that are trained in part."""
        chosen = {n: t.selection for n, t in self.trained.items()}
        return {n: s for n, s in chosen.items() if s is not None}
