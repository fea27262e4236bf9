"""The state of an ONNX artifact: buffers that steps read and write, on the provider's device.

In the processor's memory a buffer is a NumPy array that ONNX Runtime reads and writes. On a
GPU it is what a run of the model has put there: the first step reads the state from the
processor's memory and leaves it on the device, and from then on it stays. Only what is read,
saved or loaded moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pockc.runtime.dtypes import Array
from pockc.runtime.library import Tensor
from pockc.runtime.onnx_providers import Device

_BFLOAT16 = 16


def value_of(ort: Any, array: Array, dtype: str) -> Any:  # noqa: ANN401  an OrtValue
    """Return a value that shares an array's memory."""
    if dtype == "bf16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array, "cpu", 0)


@dataclass(slots=True)
class Buffer:
    """A tensor's memory; `host` is its array, None if it is or will be on a device."""

    value: Any
    host: Array | None


class Slot:
    """A tensor of the state: one buffer, or two that take turns."""

    def __init__(self, ort: Any, tensor: Tensor, buffers: int, device: Device) -> None:  # noqa: ANN401
        """Allocate zeros.

        Args:
            ort: The package.
            tensor: The tensor.
            buffers: 1 if a step may write it over its old value, else 2.
            device: Where it shall live.
        """
        self.tensor, self.device = tensor, device
        self._ort = ort
        self.current, self._version = 0, 0
        self.buffers = [self._zeros()]
        if buffers > 1 or not device.overwrites:
            self.buffers.append(self._zeros() if device.is_host else Buffer(None, None))

    def _zeros(self) -> Buffer:
        return self._of(np.zeros(self.tensor.shape, self.tensor.element.numpy))

    def _of(self, array: Array) -> Buffer:
        return Buffer(value_of(self._ort, array, self.tensor.element.name), array)

    @property
    def now(self) -> Buffer:
        """The buffer that holds the tensor."""
        return self.buffers[self.current]

    @property
    def following(self) -> int:
        """The number of the buffer that takes the next value."""
        return (self.current + 1) % len(self.buffers)

    @property
    def target(self) -> Any:  # noqa: ANN401  an OrtValue, or None
        """What the next value is written to; None if the device has to allocate it first."""
        found = self.buffers[self.following]
        return found.value if found.host is None or self.device.is_host else None

    @property
    def place(self) -> tuple[int, int]:
        """What a binding to the buffers of now depends on: whose turn it is, which they are."""
        return self.current, self._version

    def turn(self, allocated: Any = None) -> None:  # noqa: ANN401
        """Take the next value, which a run has written; `allocated` if it made the memory."""
        self.current = self.following
        if allocated is not None:
            self._put(Buffer(allocated, None))

    def array(self) -> Array:
        """Return the value: the memory itself, or a copy of what is on a device."""
        now = self.now
        return now.value.numpy() if now.host is None else now.host

    def write(self, first: int, source: Array) -> None:
        """Copy a contiguous array over the elements from number `first` on."""
        array = self.array()
        if not self.device.is_host:
            array = np.array(array)
            self._put(self._of(array))
        array.reshape(-1)[first : first + source.size] = source.reshape(-1)

    def _put(self, buffer: Buffer) -> None:
        self.buffers[self.current] = buffer
        self._version += 1


@dataclass(slots=True)
class Bound:
    """A model's session bound to buffers.

    Attributes:
        binding: The IOBinding.
        made: Each output in order, with the slot whose buffer the run allocates.
    """

    binding: Any
    made: tuple[Slot | None, ...]


def bind_state(
    session: Any,  # noqa: ANN401
    reads: list[tuple[str, Slot]],
    writes: list[tuple[str, Slot]],
    device: Device,
) -> Bound:
    """Bind what a run reads and writes of the state."""
    binding = session.io_binding()
    made: list[Slot | None] = []
    for name, slot in reads:
        binding.bind_ortvalue_input(name, slot.now.value)
    for name, slot in writes:
        if slot.target is None:
            binding.bind_output(name, device.name, device.number)
        else:
            binding.bind_ortvalue_output(name, slot.target)
        made.append(slot if slot.target is None else None)
    return Bound(binding, tuple(made))
