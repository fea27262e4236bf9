"""Every op over its samples and layouts; and what is said where a lowering is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pockc import backends, ops
from pockc.backends.base import Lowerings, unlowered
from pockc.backends.tvm import BACKEND, targets
from pockc.errors import InternalError, UserError
from pockc.ir import DType, TensorType
from pockc.ir.verify import verify
from pockc.passes.pipeline import Form
from tests.backends.native import Case, Library, case
from tests.support import close, graph
from tests.tolerances import tolerance

pytestmark = pytest.mark.needs_tvm

# Views have no kernel; whatever moves bytes is a relayout.
OPS = [o for o in ops.OPS.values() if o.kind is not ops.OpKind.VIEW and o.samples]


def _reversed(tensor: TensorType) -> TensorType:
    return tensor.with_layout(tuple(reversed(range(tensor.rank))))


def sample_cases() -> dict[str, Case]:
    """Return each sample of each op, row-major and with every layout reversed."""
    found = {}
    for op in OPS:
        for number, sample in enumerate(op.samples):
            arrays = sample.arrays(np.random.default_rng(number))
            result = op.infer(sample.types, sample.attrs)
            if op.name == "literal" or result.size == 0:
                continue
            found[f"{op.name}-{number}"] = case(
                op.name, result, sample.types, arrays, sample.attrs
            )
            if op.name == "relayout":  # its layouts are what it is about
                continue
            types = [_reversed(t) for t in sample.types]
            found[f"{op.name}-{number}-reversed"] = case(
                op.name, _reversed(result), types, arrays, sample.attrs
            )
    return found


CASES = sample_cases()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(list(CASES.values()), tmp_path_factory.mktemp("samples"))


@pytest.mark.parametrize("name", CASES)
def test_a_sample_on_tvm_is_the_reference(name: str, library: Library) -> None:
    run = CASES[name]
    expected = ops.get(run.node.op).reference(run.arrays, run.node.attrs)
    result = library.run(list(CASES).index(name), run)
    close(result, expected, tolerance(run.node.type.dtype, "kernel"))


def test_a_wrong_kernel_would_be_noticed(library: Library) -> None:
    name = "exp-3"
    run = CASES[name]
    wrong = ops.get("exp").reference([2 * run.arrays[0]], run.node.attrs)
    result = library.run(list(CASES).index(name), run)
    with pytest.raises(AssertionError):
        close(result, wrong, tolerance(DType.F32, "kernel"))


@pytest.mark.parametrize("op", [o for o in ops.OPS.values() if o.decompose is None])
@pytest.mark.parametrize("backend", backends.NAMES)
def test_every_primitive_has_a_lowering(op: ops.OpDef, backend: str) -> None:
    native = backends.get(backend).native
    if op.kind is ops.OpKind.FUSED and backends.get(backend).form is not Form.KERNELS:
        assert op.name not in native  # it gets graphs in which nothing is fused
        return
    views = op.kind is ops.OpKind.VIEW
    assert views or op.name in {*native, "literal"}, (
        f"'{op.name}' is a primitive that backend '{backend}' does not lower:\n"
        f"give pockc/ops/{op.name}.py a `decompose`, or backends/{backend} a lowering"
    )


MISSING = graph("""
  %x : f32[4] = input batch "x"
  %a : f32[4] = erf(%x)
  %b : f32[4] = exp(%a)
  %c : f32[4] = sin(%b)
  output prediction "0" %c
""")


def test_all_nodes_without_a_lowering_are_reported_together() -> None:
    problems = list(unlowered(verify(MISSING), frozenset({"exp"}), "toy"))
    assert str(problems[0]) == (
        "[no-lowering] backend 'toy' does not lower 'erf', and it has no decomposition\n"
        "    at   %a : f32[4] = erf(%x)\n"
        "    fix  give pockc/ops/erf.py a `decompose`, or choose another backend"
    )
    assert [p.at for p in problems] == [
        "%a : f32[4] = erf(%x)",
        "%c : f32[4] = sin(%b)",
    ]


def test_an_unknown_backend_names_the_choices() -> None:
    with pytest.raises(UserError) as caught:
        backends.get("tmv")
    assert str(caught.value) == (
        "[no-backend] there is no backend 'tmv'\n    fix  choose from: tvm, onnx, ort-training"
    )


def test_a_lowering_needs_an_op_and_is_given_once() -> None:
    lower: Lowerings[object] = Lowerings("toy")  # type: ignore[type-var]
    lower("exp")(print)
    with pytest.raises(InternalError, match=r"\[lowering-twice\] toy lowers 'exp' twice"):
        lower("exp")(print)
    with pytest.raises(InternalError, match=r"\[lowering-no-op\] 'expp' is not an op"):
        lower("expp")(print)


@pytest.mark.parametrize("name", [n for n in targets.NAMES if n != "host"])
def test_kernels_for_other_machines_are_objects_of_theirs(name: str) -> None:
    selection = BACKEND.select(MISSING, name, 4)
    objects = BACKEND.build(list(selection.kernels.values()), name)
    machine = {"x86_64": 0x3E, "aarch64": 0xB7, "armv7l": 0x28}[targets.get(name).arch]
    for code in objects.values():
        assert code[:4] == b"\x7fELF"
        assert int.from_bytes(code[18:20], "little") == machine


def test_equal_kernels_are_built_once_and_to_equal_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    twice = graph("""
      %x : f32[4] = input batch "x"
      %y : f32[4] = input batch "y"
      %a : f32[4] = exp(%x)
      %b : f32[4] = exp(%y)
      output prediction "0" %a
      output prediction "1" %b
    """)
    selection = BACKEND.select(twice, "host", 2)
    assert len(selection.kernels) == 1
    assert selection.calls["a"].symbol == selection.calls["b"].symbol
    kernels = list(selection.kernels.values())
    built = []
    for folder in ("one", "two"):
        monkeypatch.setenv("POCKC_CACHE", str(tmp_path / folder))
        built.append(BACKEND.build(kernels, "host"))
    assert built[0] == built[1]
