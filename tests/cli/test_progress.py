"""Long work shows how far it is and the time left on a terminal, and nothing elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pockc.cli.console import Bar, progress_bar
from tests.cli.test_compile import MODEL

ROOT = Path(__file__).parents[2]


def test_without_a_terminal_nothing_is_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as bar:
        bar.update("kernels", 3, 9)
    assert capfd.readouterr() == ("", "")
    Bar(None).update("kernels", 3, 9)


def on_a_terminal(*words: object) -> str:
    """Run a command with its error output on a terminal; return what it drew there."""
    ours, theirs = pty.openpty()
    drawn: list[bytes] = []

    def read() -> None:
        # The terminal's end is an error on Linux.
        try:
            while part := os.read(ours, 4096):
                drawn.append(part)
        except OSError:
            return

    reader = threading.Thread(target=read)
    reader.start()
    command = [sys.executable, "-m", "pockc.cli", *map(str, words)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment, check=False
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    assert done.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(drawn).decode())


@pytest.mark.slow
@pytest.mark.needs_torch
@pytest.mark.needs_tvm
def test_compile_tune_and_train_say_how_far_they_are_and_the_time_left(tmp_path: Path) -> None:
    model, artifact, data = tmp_path / "net.py", tmp_path / "net.pock", tmp_path / "data.npz"
    model.write_text(MODEL, encoding="utf-8")
    rng = np.random.default_rng(0)
    np.savez(data, x=rng.standard_normal((64, 6)).astype(np.float32), target=np.zeros(64, int))
    drawn = on_a_terminal("compile", model, "-o", artifact)
    for stage in ("capture", "passes", "kernels", "link"):
        assert stage in drawn
    assert re.search(r"kernels .*\d+/\d+ \d:\d\d:\d\d (\d:\d\d:\d\d|-:--:--)", drawn)
    drawn = on_a_terminal("train", artifact, "--data", data, "--epochs", 40)
    assert re.search(r"training .*\d+/640 \d:\d\d:\d\d \d:\d\d:\d\d +loss [\d.]+", drawn)
    drawn = on_a_terminal("tune", artifact, "-o", tmp_path / "t.json", "--budget", "1s")
    assert re.search(r"tune .*0/\d+ .* 1 s left", drawn)
