"""Tables as C and the link of step.so."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pockc.backends.native import HOST, NativeTarget, link, table_source
from pockc.backends.native import zig as zig_module
from pockc.backends.native.tables import _text
from pockc.errors import InternalError, UserError
from pockc.ir.roles import Scalar
from pockc.plan.types import EntryPlan, InputPort, Plan, Step
from tests.runtime.toy import link_toy, toy_plan


def changed(plan: Plan, *steps: Step) -> Plan:
    """The plan with other steps in its first entry."""
    first = replace(plan.entries[0], steps=steps)
    return replace(plan, entries=(first, *plan.entries[1:]))


def test_equal_plans_give_equal_libraries(tmp_path: Path, libraries: dict[str, Path]) -> None:
    assert table_source(toy_plan()) == table_source(toy_plan())
    (tmp_path / "elsewhere").mkdir()
    again = link_toy(tmp_path / "elsewhere")
    assert again.read_bytes() == libraries["plain"].read_bytes()
    assert b"/tmp" not in again.read_bytes()
    assert again.read_bytes() != libraries["micro"].read_bytes()


def test_the_library_exports_the_interface_and_nothing_else(libraries: dict[str, Path]) -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("there is no nm to list symbols with")
    command = [nm, "-D", "--defined-only", str(libraries["plain"])]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in text.splitlines()}
    assert "pk_open" in names
    assert not [n for n in names if not n.startswith("pk_")]


def test_thousands_of_steps_link_fast(tmp_path: Path, libraries: dict[str, Path]) -> None:
    assert libraries  # the cache is warm
    plan = toy_plan()
    steps = tuple(
        replace(step, node=f"n{i}") for i in range(4000) for step in plan.entries[1].steps[:1]
    )
    obj = (libraries["plain"].parent / "toy.o").read_bytes()
    entries = (*plan.entries, EntryPlan("long", steps, (), (), 0, 0))
    begin = time.perf_counter()
    link(replace(plan, entries=entries), {"toy": obj}, tmp_path / "long.so")
    assert time.perf_counter() - begin < 10  # not a measurement: linear, not quadratic


@pytest.mark.slow
@pytest.mark.parametrize(
    ("triple", "machine"),
    [("x86_64-linux-gnu", 62), ("aarch64-linux-gnu", 183), ("armv7l-linux-gnueabihf", 40)],
)
def test_libraries_are_linked_for_other_machines(
    tmp_path: Path, triple: str, machine: int
) -> None:
    plan = toy_plan()
    copies = tuple(
        Step("pk_copy", (step.args[0], step.args[0]), step.node)
        for step in plan.entries[0].steps[:1]
    )
    plan = replace(plan, entries=(replace(plan.entries[0], steps=copies),))
    target = NativeTarget.of_llvm(triple)
    link(plan, {}, tmp_path / "step.so", target)
    head = (tmp_path / "step.so").read_bytes()[:20]
    assert head[:4] == b"\x7fELF"
    assert int.from_bytes(head[18:20], "little") == machine
    assert (tmp_path / "step.so").stat().st_size < 100_000


def test_a_kernel_that_no_object_defines_is_named(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match=r"\[zig-failed\](.|\n)*toy_forward"):
        link(toy_plan(), {}, tmp_path / "step.so")
    assert not (tmp_path / "step.so").exists()


def test_a_kernel_with_two_arities_is_refused() -> None:
    plan = toy_plan()
    step = plan.entries[0].steps[0]
    wrong = changed(plan, step, replace(step, args=step.args[:2]))
    with pytest.raises(InternalError) as caught:
        table_source(wrong)
    assert str(caught.value) == (
        "[kernel-arity] kernels are called with different numbers of arguments: "
        "toy_forward with 2, toy_forward with 5"
    )


def test_an_unknown_scalar_is_refused() -> None:
    plan = toy_plan()
    lr = next(i for i in plan.entries[0].inputs if isinstance(i.role, Scalar))
    entry = replace(plan.entries[0], inputs=(InputPort(Scalar("heat"), lr.type, lr.place),))
    with pytest.raises(InternalError, match=r"\[unknown-scalar\].*lr, step, seed"):
        table_source(replace(plan, entries=(entry,)))


def test_a_missing_linker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(UserError) as caught:
        zig_module.run_zig(("version",), tmp_path)
    assert str(caught.value) == (
        "[no-zig] the linker is missing: there is no Python package 'ziglang'\n"
        '    fix  install it: pip install "pockc[compile]"'
    )


def test_names_are_written_as_c_strings() -> None:
    assert _text('a"b\\c?é\n') == '"a\\042b\\134c\\077\\303\\251\\012"'


def test_the_host_is_a_platform_with_an_old_libc() -> None:
    assert HOST.triple.endswith("-linux-gnu.2.17")
    assert NativeTarget.of_llvm("aarch64-linux-musl").triple == "aarch64-linux-musl"
    assert NativeTarget.of_llvm("x86_64-unknown-linux-gnu").triple == "x86_64-linux-gnu.2.17"


def test_platforms_are_named_as_zig_names_them() -> None:
    arm = NativeTarget.of_llvm("armv7l-linux-gnueabihf")
    assert arm.triple == "arm-linux-gnueabihf.2.17"
    static = NativeTarget.of_llvm("armv7l-linux-gnueabihf", static=True)
    assert static.triple == "arm-linux-musleabihf"
    assert NativeTarget.of_llvm("aarch64-linux-gnu", static=True).triple == "aarch64-linux-musl"
