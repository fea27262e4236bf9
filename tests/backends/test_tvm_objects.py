"""Object files of kernels: their symbols, their bytes, the cache; and approximations."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pockc.backends.base import Kernel
from pockc.backends.tvm import BACKEND
from pockc.errors import UserError
from pockc.ir.attrs import Attrs
from pockc.ir.types import DType, TensorType, f32
from tests.backends.native import Case, Library, case
from tests.backends.test_tvm_fused import BODIES, fused_case

pytestmark = pytest.mark.needs_tvm

ALLOWED = {
    *("memset", "memcpy", "memmove", "_GLOBAL_OFFSET_TABLE_"),
    *(
        "sinf",
        "cosf",
        "powf",
        "fmodf",
        "exp",
        "log",
        "tanh",
        "erf",
        "pow",
        "sin",
        "cos",
        "fmod",
    ),
}


def _kernels() -> list[Kernel]:
    found: dict[str, Kernel] = {}
    for make in BODIES:
        found |= BACKEND.select(fused_case(make()).graph, "host", 2).kernels
    return list(found.values())


def _undefined(code: bytes) -> set[str]:
    """Return the undefined symbols of a 64-bit little-endian ELF object."""
    at = int.from_bytes(code[40:48], "little")
    size, count = (int.from_bytes(code[i : i + 2], "little") for i in (58, 60))
    heads = [code[at + k * size : at + (k + 1) * size] for k in range(count)]

    def number(head: bytes, start: int, length: int) -> int:
        return int.from_bytes(head[start : start + length], "little")

    symbols = next(h for h in heads if number(h, 4, 4) == 2)
    strings = heads[number(symbols, 40, 4)]
    first, length = number(symbols, 24, 8), number(symbols, 32, 8)
    names = number(strings, 24, 8)
    found = set()
    for entry in range(first + 24, first + length, 24):
        section = int.from_bytes(code[entry + 6 : entry + 8], "little")
        name = names + int.from_bytes(code[entry : entry + 4], "little")
        if section == 0:
            found.add(code[name : code.index(b"\0", name)].decode())
    return found


def test_objects_need_nothing_but_the_c_library() -> None:
    for symbol, code in BACKEND.build(_kernels(), "host").items():
        assert _undefined(code) <= ALLOWED, symbol


def test_common_transcendentals_call_no_library() -> None:
    for op in ("exp", "log", "tanh", "sigmoid", "erf", "sqrt", "rsqrt", "floor"):
        c = case(op, f32(50), (f32(50),), (np.ones(50),), Attrs({}))
        for code in BACKEND.build(
            list(BACKEND.select(c.graph, "host", 2).kernels.values())
        ).values():
            assert not _undefined(code) - {"_GLOBAL_OFFSET_TABLE_"}, op


def test_kept_objects_are_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKC_CACHE", str(tmp_path))
    kernels = _kernels()[:3]
    seen: list[tuple[int, int]] = []
    first = BACKEND.build(kernels, "host", lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 3)
    assert seen[-1] == (3, 3)
    seen.clear()
    assert BACKEND.build(kernels, "host", lambda d, t: seen.append((d, t))) == first
    assert seen == [(3, 3)]


def test_another_target_or_another_number_of_threads_is_another_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKC_CACHE", str(tmp_path))
    c = fused_case(BODIES[0]())
    for target, threads in (("host", 1), ("host", 3), ("rpi4", 3)):
        BACKEND.build(list(BACKEND.select(c.graph, target, threads).kernels.values()), target)
    assert len(list(tmp_path.rglob("*.o"))) == 3


def test_equal_input_gives_equal_bytes_in_another_process(tmp_path: Path) -> None:
    program = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from pockc.backends.tvm import BACKEND
from tests.backends.test_tvm_objects import _kernels
objects = BACKEND.build(_kernels()[:4], "rpi4")
print([hashlib.sha256(o).hexdigest() for o in objects.values()])
"""
    root = str(Path(__file__).parents[2])
    outputs = []
    for seed in ("1", "2"):
        env = {
            "PYTHONHASHSEED": seed,
            "POCKC_CACHE": str(tmp_path / seed),
            "HOME": str(tmp_path),
        }
        command = [sys.executable, "-c", program, root]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


def _unary(op: str, values: np.ndarray) -> Case:
    return case(op, f32(values.size), (f32(values.size),), (values,), Attrs({}))


EDGES = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, -3e38, 1.0])
RANGES = {
    "exp": np.linspace(-105, 90, 20001),
    "log": np.concatenate([np.geomspace(1e-44, 3e38, 10001), np.linspace(0.5, 2, 10001)]),
    "tanh": np.concatenate([np.linspace(-12, 12, 20001), np.geomspace(1e-8, 1, 1001)]),
    "sigmoid": np.linspace(-90, 90, 20001),
    "erf": np.concatenate([np.linspace(-5, 5, 20001), np.geomspace(1e-8, 1, 1001)]),
}
MEANINGS = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf),
}


@pytest.fixture(scope="module")
def curves(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    cases = {op: _unary(op, np.float32(np.concatenate([r, EDGES]))) for op, r in RANGES.items()}
    library = Library(list(cases.values()), tmp_path_factory.mktemp("curves"))
    return {
        op: (c.arrays[0], library.run(number, c))
        for number, (op, c) in enumerate(cases.items())
    }


@pytest.mark.parametrize("op", RANGES)
def test_an_approximation_is_good_to_a_few_units_in_the_last_place(
    op: str, curves: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    x, got = curves[op]
    with np.errstate(all="ignore"):
        want = MEANINGS[op](x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=2e-38)
    with np.errstate(all="ignore"):
        wrong = got * np.float32(1.00001)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong, want, rtol=1e-6, atol=2e-38)


def test_put_in_place_writes_only_its_rows(tmp_path: Path) -> None:
    x, v = np.arange(15, dtype=np.float32).reshape(5, 3), -np.ones((2, 3), np.float32)
    attrs = Attrs({"axis": 0, "indices": (4, 1), "inplace": 0})
    c = case("put", f32(5, 3), (f32(5, 3), f32(2, 3)), (x, v), attrs)
    got = Library([c], tmp_path).run(0, c)
    want = x.copy()
    want[[4, 1]] = v
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("inplace", [{}, {"inplace": 0}])
def test_many_small_rows_for_one_place_are_not_lost(
    inplace: dict[str, int], tmp_path: Path
) -> None:
    # One by one they would each vanish beside 1.
    x, dy = np.ones((300, 20), np.float32), np.full((4000, 20), 2.0**-25, np.float32)
    index = np.full(4000, 7, np.int64)
    index[1000:2000] = 299
    types = (f32(300, 20), f32(4000, 20), TensorType((4000,), DType.I64))
    c = case("index_add", f32(300, 20), types, (x, dy, index), Attrs(inplace))
    want = x.copy()
    want[7] += np.float32(3000 * 2.0**-25)
    want[299] += np.float32(1000 * 2.0**-25)
    np.testing.assert_array_equal(Library([c], tmp_path).run(0, c), want)


def test_a_missing_tvm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tvm", None)
    with pytest.raises(UserError) as caught:
        BACKEND.build([], "host")
    assert str(caught.value) == (
        "[no-tvm] the backend 'tvm' needs a package that is missing: tvm\n"
        "    fix  pip install 'pockc[compile]'"
    )
