"""Helpers of the tests: golden texts, and comparisons that are tested to reject errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pockc import interp
from pockc.ir import DType, Graph, InputRole, OutputRole, Param, Scalar
from pockc.ir.parser import parse_graph
from tests.tolerances import EXACT, Tolerance, tolerance

GOLDEN = "golden"
Command = Callable[..., tuple[int, str, str]]
"""A command line of pockc: words in; status, output and error output out."""


@dataclass
class Golden:
    """Texts that lie beside a test: `golden/<test file>/<test>.<suffix>`.

    Attributes:
        folder: The folder `golden` beside the test.
        default: Name of the file for `check` without a name.
        bless: Whether to write what is found instead of comparing.
        read: Called with every file that was compared or written.
    """

    folder: Path
    default: str
    bless: bool
    read: Callable[[Path], None] = field(default=lambda _: None)

    def check(self, text: str, name: str | None = None) -> None:
        """Compare a text to the golden one; a missing one is an error that shows the text."""
        path = self.folder / (name or self.default)
        self.read(path)
        if self.bless:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        hint = f"run pytest with --bless to write {path.name}"
        if not path.exists():
            raise AssertionError(f"there is no golden text; {hint}\n{text}")
        expected = path.read_text(encoding="utf-8")
        assert text == expected, f"differs from {path}; {hint} if that is right"


def graph(text: str) -> Graph:
    """Return the graph of a text; `graph t {` and `}` may be left out."""
    text = text.strip()
    return parse_graph(text if text.startswith("graph") else f"graph t {{\n{text}\n}}")


def close(actual: np.ndarray, expected: np.ndarray, allowed: Tolerance) -> None:
    """Assert that an array is what is expected: shape, dtype, where it is nan, and values."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    if allowed is EXACT or not np.issubdtype(expected.dtype, np.inexact):
        np.testing.assert_array_equal(actual, expected)
        return
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(finite.max()) if finite.size else 0.0
    np.testing.assert_allclose(
        actual, expected, rtol=allowed.rtol, atol=allowed.atol * scale, equal_nan=True
    )


def random_inputs(of: Graph, seed: int = 0, below: int = 2) -> dict[InputRole, np.ndarray]:
    """Return an array for every input; integers are drawn from 0 to `below` - 1."""
    rng = np.random.default_rng(seed)
    return {i.role: _draw(i.role, i.type.shape, i.type.dtype, rng, below) for i in of.inputs}


def _draw(
    role: InputRole,
    shape: tuple[int, ...],
    dtype: DType,
    rng: np.random.Generator,
    below: int,
) -> np.ndarray:
    if isinstance(role, Scalar):
        return np.asarray({"lr": 0.1, "step": 3, "seed": 5}.get(role.name, 1), dtype.np)
    if dtype is DType.B1:
        return np.asarray(rng.integers(0, 2, shape), dtype=np.bool_)
    if dtype.is_integer:
        return np.asarray(rng.integers(0, below, shape), dtype=dtype.np)
    return np.asarray(rng.standard_normal(shape), dtype=dtype.np)


def results(of: Graph, given: Mapping[InputRole, np.ndarray]) -> dict[OutputRole, np.ndarray]:
    """Return what a graph computes; what it does not take is left out."""
    return interp.run(of, {i.role: given[i.role] for i in of.inputs})


def same_results(
    before: Graph,
    after: Graph,
    *,
    kind: str | None = None,
    given: Mapping[InputRole, np.ndarray] | None = None,
    below: int = 2,
) -> None:
    """Assert that two graphs compute the same.

    Args:
        before: The graph that is right.
        after: The other one; it may have fewer inputs.
        kind: Row of the tolerance table; None for bit by bit.
        given: The inputs; drawn at random by default.
        below: Bound of random integers.
    """
    given = given or random_inputs(before, below=below)
    expected, actual = results(before, given), results(after, given)
    assert list(actual) == list(expected), "the outputs differ"
    for role, array in expected.items():
        dtype = before.type_of(next(o.value for o in before.outputs if o.role == role)).dtype
        try:
            close(actual[role], array, tolerance(dtype, kind) if kind else EXACT)
        except AssertionError as error:
            raise AssertionError(f"{role}: {error}") from None


def without_numbers(text: str) -> str:
    """Return graph text without the contents of literals: the last bit differs by CPU."""
    return re.sub(r'(literal \w+\[[^\]]*\]) (\[[^\]]*\]|"[0-9a-f]+")', r"\1 [...]", text)


def ops_of(of: Graph) -> list[str]:
    """Return the ops of a graph in order, those inside fused nodes too."""
    found: list[str] = []
    for node in of.nodes:
        found += ops_of(node.attrs["body"]) if node.op == "fused" else [node.op]
    return found


def parameters(of: Graph) -> tuple[str, ...]:
    """Return the names of the parameters that a graph takes."""
    return tuple(i.role.name for i in of.inputs if isinstance(i.role, Param))
