"""What `plan` says of a step's time, and the files that it takes times from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pockc.profile import lower_quartile, read_profile
from tests.support import Command

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm, pytest.mark.slow]

MODEL = """
import torch
from tests import nets
model = nets.make("resnet")
*inputs, _ = nets.batches("resnet", 4, 1)[0]
example_inputs = tuple(inputs)
"""
SHARES = re.compile(r"  (measured|fitted|usual) +(\d+) %  (\d+) kernels")


def shares(out: str) -> dict[str, int]:
    return {found[1]: int(found[2]) for found in SHARES.finditer(out)}


def predicted_ms(out: str) -> float:
    found = re.search(r"time of a step +([\d.]+) (ms|us)  predicted", out)
    assert found is not None, out
    return float(found[1]) * (1e-3 if found[2] == "us" else 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step-time")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    return folder


def plan(pockc: Command, folder: Path, preset: str, *more: object) -> str:
    words = ("plan", folder / "model.py", "--preset", preset, "--threads", 1, *more)
    status, out, err = pockc(*words)
    assert status == 0, err
    return out


@pytest.fixture
def profile(folder: Path, pockc: Command) -> Path:
    """The profile of a full update on this machine, one thread."""
    path = folder / "profile.json"
    if not path.exists():
        made = folder / "full.pock"
        words = ("compile", folder / "model.py", "--preset", "full", "--threads", 1, "-o", made)
        assert pockc(*words)[0] == 0
        words = ("profile", made, "--threads", 1, "--json", path)
        assert pockc(*words)[0] == 0
    return path


def test_a_profile_of_one_scheme_tells_the_time_of_it_and_of_others(
    folder: Path, profile: Path, pockc: Command
) -> None:
    whole = plan(pockc, folder, "full", "--kernel-times", profile)
    assert shares(whole) == {"measured": 100}
    step_ms = lower_quartile(read_profile(profile).step_ms)
    assert predicted_ms(whole) == pytest.approx(step_ms, rel=0.02)
    part = plan(pockc, folder, "last:1", "--kernel-times", profile)
    assert sum(shares(part).values()) in (99, 100, 101)
    assert 10 < shares(part)["measured"] < 100
    assert predicted_ms(part) < predicted_ms(whole)


def test_times_of_several_files_are_put_together(
    folder: Path, profile: Path, pockc: Command
) -> None:
    slow = json.loads(profile.read_text())
    for kernel in slow["kernels"]:
        kernel["low_ms"] *= 3
    slow["step_ms"] = [3 * ms for ms in slow["step_ms"]]
    other = folder / "slow.json"
    other.write_text(json.dumps(slow))
    alone, both = (
        plan(pockc, folder, "full", *(w for f in files for w in ("--kernel-times", f)))
        for files in ([other], [other, profile])
    )
    assert predicted_ms(alone) > 2 * predicted_ms(both)


def test_a_boards_profile_predicts_for_the_board(
    folder: Path, profile: Path, pockc: Command
) -> None:
    data = json.loads(profile.read_text())
    data["target"], data["machine"]["cpu"] = "rpi4", "Raspberry Pi 4 Model B Rev 1.5"
    board = folder / "board.json"
    board.write_text(json.dumps(data))
    out = plan(pockc, folder, "full", "--target", "rpi4", "--kernel-times", board)
    assert shares(out)["measured"] > 50
    unknown = plan(pockc, folder, "full", "--target", "rpi4")
    assert shares(unknown) == {"usual": 100}


def test_a_profile_of_another_machine_is_refused(
    folder: Path, profile: Path, pockc: Command
) -> None:
    data = json.loads(profile.read_text())
    foreign = folder / "foreign.json"
    words = ("plan", folder / "model.py", "--kernel-times", foreign)
    foreign.write_text(json.dumps(data | {"target": "rpi4"}))
    status, _, err = pockc(*words, "--threads", 1)
    assert status != 0
    assert "recorded for target rpi4 with 1 threads, and not for host with 1" in err
    assert "fix  add --target rpi4 --threads 1" in err
    foreign.write_text(json.dumps(data))
    assert "and not for host with 2" in pockc(*words, "--threads", 2)[2]
    foreign.write_text(json.dumps(data | {"machine": data["machine"] | {"cpu": "Z80"}}))
    assert "recorded on another machine: Z80" in pockc(*words, "--threads", 1)[2]
    foreign.write_text(profile.read_text()[:-100])
    assert "[kernel-times]" in pockc(*words, "--threads", 1)[2]


def test_missing_kernels_are_measured_and_kept(
    folder: Path, pockc: Command, tmp_path: Path
) -> None:
    times = tmp_path / "times.json"
    measured = plan(pockc, folder, "last:1", "--measure", "--kernel-times", times)
    assert shares(measured) == {"measured": 100}
    kept = plan(pockc, folder, "last:1", "--kernel-times", times)
    assert shares(kept) == {"measured": 100}
    assert predicted_ms(kept) == predicted_ms(measured)
    # Nothing is missing: nothing is built or run.
    before = times.read_bytes()
    plan(pockc, folder, "last:1", "--measure", "--kernel-times", times)
    assert times.read_bytes() == before


def test_another_machines_kernels_are_not_measured_here(folder: Path, pockc: Command) -> None:
    words = ("plan", folder / "model.py", "--measure", "--target", "rpi4")
    status, _, err = pockc(*words)
    assert status != 0
    assert "[measure]" in err
    assert "pockc profile MODEL.pock --on user@host" in err


def test_what_fit_chooses_is_measured_too(folder: Path, pockc: Command, tmp_path: Path) -> None:
    times = ("--measure", "--kernel-times", tmp_path / "times.json", "--threads", 1)
    words = ("--preset", "head", "--fit", "--memory-budget", "8MiB", *times)
    status, out, err = pockc("plan", folder / "model.py", *words)
    assert status == 0, err
    assert "accumulate 1" in err
    assert "Planned, and measured" in out
    assert shares(out) == {"measured": 100}
