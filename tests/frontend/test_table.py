"""The table of handlers names operations that torch has, each once."""

from __future__ import annotations

import operator

import pytest
import torch

from pockc.frontend.composite import INFERENCE, REPLACED
from pockc.frontend.decompositions import fallbacks
from pockc.frontend.importer import supported
from pockc.frontend.importer.base import HANDLERS, ONE_TO_ONE, lower


def exists(name: str) -> bool:
    try:
        operator.attrgetter(name)(torch.ops)
    except AttributeError:
        return False
    return True


def test_every_handler_is_of_an_operation_that_torch_has() -> None:
    assert [name for name in (*HANDLERS, *ONE_TO_ONE) if not exists(name)] == []
    assert not exists("aten.no_such_operation.default")


def test_no_operation_is_imported_in_two_ways() -> None:
    assert HANDLERS.keys() & ONE_TO_ONE.keys() == set()
    assert [op for op in fallbacks() if supported(str(op))] == []


def test_a_second_handler_is_refused() -> None:
    with pytest.raises(ImportError, match=r"aten\.relu\.default has two handlers"):
        lower("aten.relu.default")(lambda _, x: x)


def test_what_is_replaced_before_autograd_is_an_operation() -> None:
    for op in (*REPLACED, *INFERENCE, *fallbacks()):
        assert isinstance(op, torch._ops.OpOverload)


def test_no_fallback_writes_in_place() -> None:
    assert [op for op in fallbacks() if op._schema.is_mutable] == []
