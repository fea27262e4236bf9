"""`pock-run peak` needs no artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pockc.backends.native import COMMAND
from pockc.runtime.opening import cpu_name
from tests.device.conftest import Command

pytestmark = pytest.mark.needs_cc


def test_the_peaks_of_the_machine_are_measured(device: Path) -> None:
    told = json.loads(Command(device / COMMAND).good("peak", "--threads", 1, "--json"))
    assert told["event"] == "peak"
    assert told["cpu"] == cpu_name()
    assert told["threads"] == 1
    assert told["gflops"] > 1
    assert told["gbs"] > 0.1


def test_an_artifact_or_an_unknown_option_is_refused(device: Path) -> None:
    command = Command(device / COMMAND)
    assert "[usage] an artifact is 'model.pock'" in command.bad("peak", "model.pock", status=2)
    assert "choose from: --threads, --json" in command.bad("peak", "--steps", 3, status=2)
    assert "choose from: train, eval, predict, info, bench, export, peak" in command.bad(
        "peek", status=2
    )
