"""Numbers as people read them."""

from __future__ import annotations

import sys

import pytest

from pockc import cli, process
from pockc.cli.text import amount, count, figures, milliseconds, percent, size, sparkline


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5 MiB"), (3 << 30, "3 GiB")],
)
def test_sizes(nbytes: int, text: str) -> None:
    assert size(nbytes) == amount(nbytes, "bytes") == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (12345, "12.3 K"), (7_000_000, "7 M")]
)
def test_counts(number: int, text: str) -> None:
    assert count(number) == amount(number, "") == text


def test_shares_times_and_figures() -> None:
    assert percent(0.1234) == "12.3 %"
    assert milliseconds(0.01234) == "0.0123 ms"
    assert milliseconds(1234.5) == "1234 ms"
    assert figures({"samples": 7, "accuracy": 0.5, "loss": 1}) == (
        "loss 1.0000, accuracy 0.5000, samples 7"
    )


def test_a_sparkline_keeps_its_peak_and_its_width() -> None:
    assert sparkline([0, 8, 4]) == " █▄"
    assert sparkline([]) == ""
    long = sparkline([0] * 500 + [9] + [0] * 499, width=50)
    assert len(long) == 50
    assert long.count("█") == 1


def test_the_process_knows_its_own_memory() -> None:
    now = process.resident_bytes()
    assert now is not None
    assert now > 1 << 20
    process.forget_peak()
    peak = process.peak_bytes()
    assert peak is not None
    assert peak >= 1 << 20


def test_without_its_packages_the_command_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "pockc.cli.app", raising=False)
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        "[missing-package] the command line needs typer\n"
        "    fix  pip install 'pockc[compile]'\n"
    )
