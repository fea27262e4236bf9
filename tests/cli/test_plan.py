"""The command `plan`: what it says, what fits instead, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pockc import driver
from pockc.backends.tvm import targets
from pockc.frontend.loading import load_model
from pockc.search.cost import Cost, cost_of
from pockc.search.kernel_times import KernelTimes
from tests.cli.small import write_model
from tests.support import Command

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]

UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
FITTING = re.compile(r"([a-z:0-9]+) \(([\d.]+) (B|KiB|MiB), ([\d.]+) ms\)")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("plan")) / "model.py"


@pytest.fixture(scope="module")
def costs(model: Path) -> dict[str, Cost]:
    """What presets cost, without the command line."""
    options = driver.Options(threads=1)
    base = driver.read_config(None, {})
    captured = driver.capture_model(load_model(str(model)), base, options)
    times = KernelTimes.read(targets.get("host"), 1)
    return {
        preset: cost_of(
            driver.plan_captured(captured, base.model_copy(update={"preset": preset}), options),
            times,
        )
        for preset in ("head", "bias", "last:1", "last:2", "last:3", "full")
    }


def plan(pockc: Command, model: Path, *more: object) -> tuple[int, str, str]:
    return pockc("plan", model, "--threads", 1, *more)


def data(pockc: Command, model: Path, *more: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(plan(pockc, model, "--json", *more)[1])
    return found


def fitting(err: str) -> list[tuple[str, float, float]]:
    """Return the presets that an error names, with bytes and milliseconds."""
    return [
        (name, float(n) * UNITS[unit], float(ms)) for name, n, unit, ms in FITTING.findall(err)
    ]


def test_a_plan_says_what_memory_is_for_and_how_long_a_step_takes(
    model: Path, pockc: Command
) -> None:
    status, out, err = plan(pockc, model, "--preset", "last:1")
    assert status == 0, err
    for line in (r"state +[\d.]+ KiB", r"arena of train_step +[\d.]+ KiB",
                 r"memory +[\d.]+ KiB", r"time of a step +[\d.]+ ms"):  # fmt: skip
        assert re.search(line, out), line
    assert [p.name for p in model.parent.iterdir() if p.suffix == ".pock"] == []


def test_a_plan_as_json_is_one_line_with_the_parts_of_the_memory(
    model: Path, pockc: Command
) -> None:
    status, out, _ = plan(pockc, model, "--preset", "bias", "--json")
    assert status == 0
    found = json.loads(out)
    parts = (found["state_bytes"], found["arena_bytes"], found["runtime_bytes"])
    assert found["memory_bytes"] == sum(parts)
    assert found["within_budget"] is True
    assert found["step_ms"] > 0
    status, out, err = plan(pockc, model, "--json", "--memory-budget", "10KiB")
    assert status == 1
    assert json.loads(out)["within_budget"] is False
    assert "[budget]" in err


def test_the_file_of_a_scheme_is_planned_as_it_is(
    model: Path, pockc: Command, tmp_path: Path, costs: dict[str, Cost]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("preset: last:1\noptimizer: {name: adamw, lr: 1.0e-3}\n")
    found = data(pockc, model, "--sparse-update", config)
    assert found["memory_bytes"] == costs["last:1"].memory_bytes != costs["last:2"].memory_bytes


def test_over_the_memory_budget_the_nearest_presets_that_fit_are_named(
    model: Path, pockc: Command, costs: dict[str, Cost]
) -> None:
    status, out, err = plan(pockc, model, "--preset", "full", "--memory-budget", "620KiB")
    assert status == 1
    assert "Planned, nothing built" in out
    assert re.search(r"\[budget\] a step takes [\d.]+ KiB, more than 620 KiB", err), err
    assert "--fit" in err
    named = fitting(err)
    assert 1 <= len(named) <= 3
    for preset, nbytes, _ in named:
        if preset in costs:
            assert nbytes == pytest.approx(costs[preset].memory_bytes, rel=0.01)
    taken = [n for _, n, _ in named]
    assert taken == sorted(taken, reverse=True)
    assert taken[0] <= 620 << 10
    best = max(c.memory_bytes for c in costs.values() if c.memory_bytes <= 620 << 10)
    assert taken[0] >= 0.99 * best


def test_if_no_preset_fits_the_least_is_named(
    model: Path, pockc: Command, costs: dict[str, Cost]
) -> None:
    status, _, err = plan(pockc, model, "--memory-budget", "10KiB")
    assert status == 1
    told = re.search(r"no preset fits: head takes ([\d.]+) KiB", err)
    assert told is not None, err
    assert float(told[1]) * 1024 == pytest.approx(costs["head"].memory_bytes, rel=0.01)


def test_over_the_latency_budget_presets_of_less_time_are_named(
    model: Path, pockc: Command, costs: dict[str, Cost]
) -> None:
    allowed = (costs["full"].step_ms + costs["head"].step_ms) / 2
    status, _, err = plan(pockc, model, "--latency-budget", f"{1000 * allowed:.1f}us")
    assert status == 1
    assert re.search(r"a step takes about [\d.]+ ms, more than [\d.]+ ms", err), err
    assert "--fit" not in err  # which makes steps longer
    named = fitting(err)
    assert named
    assert all(ms <= 1.01 * allowed for _, _, ms in named)


def test_fit_shows_what_it_tries_and_writes_a_configuration_that_fits(
    model: Path, pockc: Command, tmp_path: Path, costs: dict[str, Cost]
) -> None:
    budget = f"{int(0.985 * costs['full'].memory_bytes)}B"
    fitted = tmp_path / "fitted.yaml"
    asked = ("--preset", "full", "--memory-budget", budget)
    status, out, err = plan(pockc, model, *asked, "--fit", "-o", fitted)
    assert status == 0, err
    assert err.startswith("accumulate 1 ")
    assert f"wrote {fitted}" in out
    again = data(pockc, model, "--sparse-update", fitted, "--memory-budget", budget)
    assert again["within_budget"] is True
    assert again["recompute"] or again["accumulate"] != 1


def test_fit_that_cannot_be_met_shows_what_it_tried_and_writes_nothing(
    model: Path, pockc: Command, tmp_path: Path
) -> None:
    fitted = tmp_path / "fitted.yaml"
    asked = ("--memory-budget", "10KiB", "--fit", "-o", fitted)
    status, _, err = plan(pockc, model, *asked)
    assert status == 1
    assert "accumulate 4" in err
    assert re.search(r"nothing fits 10 KiB: the least is [\d.]+ KiB, with accumulate", err)
    assert not fitted.exists()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--memory-budget", "64"), "as 64MiB; units: B, KiB, MiB, GiB, kB, MB, GB"),
        (("--memory-budget", "64Mib/s"), "[budget] cannot read '64Mib/s' as a budget"),
        (("--memory-budget", "0MiB"), "write a number above 0 with its unit"),
        (("--latency-budget", "5min"), "as 50ms; units: us, ms, s"),
        (("--fit",), "[budget] --fit needs a memory budget"),
        (("-o", "x.yaml"), "[option] -o writes what --fit has chosen"),
        (
            ("--fit", "--memory-budget", "1MiB", "-o", "no/where/x.yaml"),
            "[no-folder] there is no folder no/where",
        ),
        (("--preset", "last:9"), "[preset] preset 'last:9' needs 9 blocks, the model has 3"),
        (("--preset", "berd"), "there is no preset 'berd'; did you mean bert?"),
    ],
)
def test_a_plan_refuses_what_it_cannot_do(
    model: Path, pockc: Command, more: tuple[str, ...], text: str
) -> None:
    status, _, err = plan(pockc, model, *more)
    assert status == 1
    assert text in err


def test_damaged_kernel_times_are_told(model: Path, pockc: Command, tmp_path: Path) -> None:
    times = tmp_path / "times.json"
    times.write_text('{"x": [1', encoding="utf-8")
    status, _, err = plan(pockc, model, "--kernel-times", times)
    assert status == 1
    assert f"[kernel-times] {times}" in err
    assert "fix" in err
    assert times.read_text() == '{"x": [1'


def test_a_published_scheme_is_shown_with_its_source(model: Path, pockc: Command) -> None:
    status, out, _ = plan(pockc, model, "--preset", "pockengine")
    assert status == 0
    shown = " ".join(out.split())
    assert "preset pockengine: resnet50, carried over to 3 blocks, after Zhu et al." in shown
    assert "MICRO 2023, section 4 (from memory: not checked" in shown


@pytest.mark.parametrize("verb", ["plan", "search"])
def test_help_has_an_example_and_the_units_of_budgets(verb: str, pockc: Command) -> None:
    status, out, _ = pockc(verb, "--help")
    assert status == 0
    assert f"pockc {verb} model.py" in out
    assert "64MiB" in out
    assert "50ms" in out
