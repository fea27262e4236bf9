"""`libpock`: the examples in C and C++, its sizes, and what it does when misused."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pockc.backends.native import NativeTarget, build_device
from pockc.backends.native.zig import run_zig
from pockc.runtime import load
from tests.device.conftest import Command
from tests.runtime.test_c import COMPILER, WARNINGS
from tests.runtime.toy import C, K, N, toy_data

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "device"
INCLUDE = f"-I{ROOT / 'runtime' / 'include'}"


def against_library(compiler: str, device: Path, source: Path, *flags: str) -> Command:
    program = device / source.stem
    link = ("-L", str(device), "-lpock", "-Wl,-rpath,$ORIGIN")
    command = [compiler, *flags, INCLUDE, str(source), *link, "-o", str(program)]
    subprocess.run(command, check=True)
    return Command(program)


@pytest.mark.needs_cc
@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_the_example_in_c(device: Path, toy_path: Path, data: Path, tmp_path: Path) -> None:
    program = against_library(str(COMPILER), device, EXAMPLES / "finetune.c", *WARNINGS)
    out = program.good(toy_path, data, data, tmp_path / "tuned.pock")
    losses = [float(n) for n in re.findall(r"epoch \d: loss ([\d.]+)", out)]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    assert len(re.findall(r"held out: loss [\d.]+, accuracy [\d.]+", out)) == 3
    assert load(tmp_path / "tuned.pock").step == 9
    assert program.bad(tmp_path / "none.pock", data, data, tmp_path / "x").startswith(
        f"[no-artifact] there is no {tmp_path / 'none.pock'}"
    )


@pytest.mark.needs_cc
def test_the_example_in_cpp(device: Path, toy_path: Path, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    flags = ("-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
    program = against_library(compiler, device, EXAMPLES / "adapt.cpp", *flags)
    out = program.good(toy_path)
    losses = [float(n) for n in re.findall(r"step \d+: loss ([\d.]+)", out)]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert out.splitlines()[-1].startswith("100 steps in ")
    assert program.bad(tmp_path).startswith(f"[foreign-folder] {tmp_path} is no artifact")


def test_the_examples_compile_for_a_board(tmp_path: Path) -> None:
    triple = "aarch64-linux-gnu.2.28"
    build_device(tmp_path, NativeTarget(triple))
    for compiler, name in (("cc", "finetune.c"), ("c++", "adapt.cpp")):
        source = str(EXAMPLES / name)
        out = str(tmp_path / Path(name).stem)
        run_zig((compiler, "-target", triple, INCLUDE, source, "-L", str(tmp_path), "-lpock",
                 "-o", out), tmp_path)  # fmt: skip
        assert Path(out).read_bytes()[:5] == b"\x7fELF\x02"


@pytest.mark.parametrize("triple", ["x86_64-linux-gnu.2.28", "aarch64-linux-gnu.2.28"])
def test_library_and_command_are_small(tmp_path: Path, triple: str) -> None:
    library, command = build_device(tmp_path, NativeTarget(triple))
    assert library.stat().st_size + command.stat().st_size < 200_000


class Library:
    """`libpock.so` by ctypes, as another language would use it."""

    def __init__(self, device: Path) -> None:
        self.dll = ctypes.CDLL(str(device / "libpock.so"))
        self.dll.pock_message.restype = ctypes.c_char_p
        self.dll.pock_message.argtypes = [ctypes.c_void_p]
        self.model = ctypes.c_void_p()

    def open(self, path: object) -> int:
        name = str(path).encode()
        return int(self.dll.pock_open(name, None, ctypes.byref(self.model)))

    @property
    def message(self) -> str:
        return str((self.dll.pock_message(self.model) or b"").decode())

    def close(self) -> None:
        self.dll.pock_close(self.model)


@pytest.fixture
def library(device: Path) -> Library:
    return Library(device)


def test_tensors_are_read_and_written_by_name(library: Library, toy_path: Path) -> None:
    assert library.open(toy_path) == 0
    with load(toy_path) as artifact:
        weight = artifact.state_dict()["fc.weight"]
    found = np.zeros_like(weight)
    call, at = library.dll, found.ctypes.data_as(ctypes.c_void_p)
    size = ctypes.c_uint64(found.nbytes)
    for name in (b"fc.weight", b"tied.weight"):
        assert call.pock_tensor_get(library.model, name, at, size) == 0
        np.testing.assert_array_equal(found, weight)
    found += 1
    assert call.pock_tensor_set(library.model, b"fc.weight", at, size) == 0
    found[:] = 0
    assert call.pock_tensor_get(library.model, b"fc.weight", at, size) == 0
    np.testing.assert_array_equal(found, weight + 1)
    assert call.pock_tensor_get(library.model, b"fc.weight", at, ctypes.c_uint64(4)) == 5
    assert library.message == (
        "[tensor-size] 'fc.weight' has 60 bytes, 4 were given\n"
        "    fix  give room for the whole tensor"
    )
    assert call.pock_tensor_get(library.model, b"fc.bias", at, size) == 4
    assert "[no-tensor] there is no tensor 'fc.bias'" in library.message
    library.close()


def test_any_number_of_rows_is_predicted(library: Library, toy_path: Path) -> None:
    assert library.open(toy_path) == 0
    for rows in (1, N, N + 3):
        x, out = toy_data(rows)[0], np.zeros((rows, K), np.float32)
        assert x.shape == (rows, C)
        inputs = (ctypes.c_void_p * 1)(x.ctypes.data)
        count = ctypes.c_uint64(rows)
        status = library.dll.pock_predict(
            library.model, count, inputs, out.ctypes.data_as(ctypes.c_void_p)
        )
        assert status == 0
        np.testing.assert_array_equal(out, load(toy_path).predict(x))
    library.close()


def test_what_is_missing_is_an_error_and_no_crash(library: Library, tmp_path: Path) -> None:
    call = library.dll
    assert call.pock_open(None, None, ctypes.byref(library.model)) == 1
    assert call.pock_open(b"x", None, None) == 1
    assert library.message == "there is no memory, or a pointer is NULL"
    assert library.open(tmp_path / "none") == 32
    assert library.message.startswith("[no-artifact]")
    for name in ("save", "load_checkpoint", "export"):
        assert getattr(call, f"pock_{name}")(library.model, b"x") == 1
        assert "[not-open]" in library.message
    assert call.pock_train(library.model, None, None) == 1
    assert call.pock_train(None, None, None) == 1
    library.close()
    call.pock_close(None)
    call.pock_data_close(None)


def test_the_library_exports_its_interface_and_nothing_else(device: Path) -> None:
    tool = shutil.which("nm")
    if tool is None:
        pytest.skip("there is no nm")
    listing = subprocess.run(
        [tool, "-D", "--defined-only", str(device / "libpock.so")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {line.split()[-1].partition("@")[0] for line in listing.stdout.splitlines()}
    header = (ROOT / "runtime" / "include" / "pock.h").read_text()
    declared = set(re.findall(r"^PK_API [\w\s*]*?\b(pock_\w+)\(", header, re.MULTILINE))
    assert declared == {n for n in names if n.startswith("pock_")}
    assert {n for n in names if not n.startswith("pock_")} <= {"_init", "_fini"}
