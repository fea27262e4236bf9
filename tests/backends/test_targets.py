"""Targets by name, and as TVM writes them."""

from __future__ import annotations

import pytest

from pockc.backends.tvm import targets
from pockc.errors import UserError
from pockc.ir.types import DType, TensorType

pytestmark = pytest.mark.needs_tvm


def test_every_target_is_described() -> None:
    for name in targets.NAMES:
        target = targets.get(name)
        assert target.vector_floats in (4, 8, 16)
        assert target.vector_registers in (16, 32)
        assert TensorType((1,), DType.F32).nbytes < target.l1_bytes < target.l2_bytes
        assert target.boards or name == "host"


@pytest.mark.parametrize("name", [n for n in targets.NAMES if n != "host"])
def test_a_name_and_its_string_are_one_machine(name: str) -> None:
    named = targets.get(name)
    text = f"llvm -mtriple={named.triple} -mcpu={named.mcpu} -mattr={','.join(named.features)}"
    read = targets.get(text if named.features else text.partition(" -mattr")[0])
    assert (read.triple, read.mcpu, read.features) == (named.triple, named.mcpu, named.features)
    assert (read.vector_floats, read.vector_registers) == (
        named.vector_floats,
        named.vector_registers,
    )
    assert targets.required_features(read) == targets.required_features(named)


def test_the_three_ways_to_write_a_target_are_one() -> None:
    ways = (
        "llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72 -mattr=+neon,+crc -num-cores=2",
        "llvm -mtriple aarch64-unknown-linux-gnu -mcpu cortex-a72 -mattr +neon,+crc "
        "-num-cores 2",
        '{"kind": "llvm", "mtriple": "arm64-linux-gnu", "mcpu": "cortex-a72", '
        '"mattr": ["+neon", "+crc"], "num-cores": 2}',
    )
    one, *others = (targets.get(way) for way in ways)
    assert one.features == ("+neon", "+crc")
    assert one.cores == 2
    assert one.l2_bytes == targets.get("rpi4").l2_bytes
    assert all(o.key == one.key for o in others)


def test_what_a_processor_must_have_is_what_its_code_may_use() -> None:
    assert targets.required_features(targets.get("rpi4")) == ()
    assert targets.required_features(targets.get("rpi5")) == ("atomics", "asimdhp", "asimddp")
    assert targets.required_features(targets.get("armv7")) == ("neon", "vfpv4", "idiva")
    v3 = targets.required_features(targets.get("x86-64-v3"))
    assert v3 == ("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2")
    wide = targets.get("llvm -mtriple=x86_64-linux-gnu -mcpu=skylake-avx512")
    assert wide.vector_floats == 16
    assert "avx512vl" in targets.required_features(wide)


def test_this_machine_needs_no_more_than_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "cpu_features", lambda: frozenset({"fma", "avx2", "smep"}))
    host = targets.get("host")
    if host.arch == "x86_64":
        assert targets.required_features(host) == ("avx2", "fma")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rpi9", "[unknown-target] there is no target 'rpi9'; is it 'rpi5'?"),
        (
            "llvm cortex-a72",
            "[target-string] cannot read the target 'llvm cortex-a72': 'cortex-a72' is no "
            "option with a value\n"
            "    fix  write it as 'llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a73'",
        ),
        (
            '{"kind": "llvm"',
            "[target-string] cannot read the target '{\"kind\": \"llvm\"': Expecting ',' "
            "delimiter: line 1 column 16 (char 15)\n"
            "    fix  write it as 'llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a73'",
        ),
        (
            "cuda -arch=sm_87",
            "[target-string] targets of kind 'cuda' cannot be compiled for\n"
            "    fix  choose the kind 'llvm'",
        ),
        (
            "llvm -mcpus=cortex-a72 -fast=1",
            "[target-option] a target has no option '-mcpus'; is it 'mcpu'?\n"
            "    fix  choose from: -mtriple, -mcpu, -mattr, -num-cores\n"
            "[target-option] a target has no option '-fast'\n"
            "    fix  choose from: -mtriple, -mcpu, -mattr, -num-cores",
        ),
        (
            "llvm -mtriple=riscv64-linux-gnu",
            "[target-triple] there is no runtime for 'riscv64-linux-gnu'\n"
            "    fix  choose from: x86_64-linux-gnu, aarch64-linux-gnu, "
            "armv7l-unknown-linux-gnueabihf",
        ),
        (
            "llvm -mtriple=aarch64-linux-gnu -mattr=neon",
            "[target-feature] LLVM knows no feature 'neon' for aarch64-linux-gnu\n"
            "    fix  write it as '+neon'",
        ),
        (
            "llvm -mtriple=aarch64-linux-gnu -num-cores=none",
            "[target-option] -num-cores is a number from 1 on, not 'none'\n"
            "    fix  write it as -num-cores=4",
        ),
    ],
)
def test_what_is_no_target_is_told(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        targets.get(text)
    assert str(caught.value).startswith(message)


def test_an_unknown_processor_names_its_neighbours() -> None:
    with pytest.raises(UserError) as caught:
        targets.get("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a27")
    text = str(caught.value)
    what = "[target-processor] LLVM knows no processor 'cortex-a27' for aarch64-linux-gnu\n"
    assert text.startswith(f"{what}    fix  choose from: cortex-a7")
    assert text.endswith("others")
