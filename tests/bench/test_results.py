"""What follows from measured times, and how it is written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.bench import machine, report
from tests.bench.__main__ import app
from tests.bench.cases import Case
from tests.bench.machine import Peak
from tests.bench.results import (
    CaseResult,
    Measured,
    Results,
    losses_agree,
    merge,
    paired_ratio,
    percentile,
    read_results,
    write_results,
)

SMALL, LARGE = Case("W1", "full", {"batch": 2}), Case("W1", "full", {"batch": 4})


def measured(peer: str, *turns: list[float], peak: int = 100 << 20) -> Measured:
    return Measured(peer, "1.0", list(turns), peak, peak, first_loss=2.0)


def results(case: Case = SMALL, factor: float = 1.0) -> Results:
    ours = measured("pockc", [10.0 * factor, 12.0 * factor], [11.0 * factor], peak=50 << 20)
    eager = measured("torch", [40.0, 40.0], [40.0], peak=200 << 20)
    graph = measured("tensorflow", [20.0, 24.0], [22.0])
    gone = Measured("ort", failed="not installed")
    peers = [ours, eager, graph, gone]
    found = CaseResult(case.key, case.title, case.mode, 2.2 * factor, Peak(2, 400, 50), peers)
    return Results("2026-01-02", "a machine", 2, "abc", [found])


def test_a_percentile_is_the_nearest_rank() -> None:
    values = [float(i) for i in range(1, 11)]
    assert percentile(values, 0.9) == 9.0
    assert percentile(values, 1.0) == 10.0
    assert percentile(values, 0.0) == 1.0
    assert percentile([7.0], 0.9) == 7.0


def test_a_ratio_is_paired_within_its_round() -> None:
    # The machine was three times slower in the second round, for both.
    ours, other = measured("a", [1.0], [3.0], [1.0]), measured("b", [2.0], [6.0], [2.0])
    assert paired_ratio(ours, other) == 0.5
    assert paired_ratio(other, ours) == 2.0


def test_other_work_is_noticed_by_its_loss() -> None:
    same, other = measured("a", [1.0]), measured("b", [1.0])
    assert losses_agree([same, other])
    other.first_loss = 2.01
    assert not losses_agree([same, other])
    other.failed = "gone"
    assert losses_agree([same, other])


def test_the_share_of_the_peak_is_arithmetic_by_time() -> None:
    case = results().cases[0]
    # 2.2 GFLOP in 11 ms are 200 of 400 GFLOP/s.
    assert case.share_of_peak(case.peers[0]) == pytest.approx(0.5)


def test_the_summary_names_the_best_of_the_others() -> None:
    (row,) = report.summary(results()).rows
    assert row == (
        "MobileNetV2 224, batch 2", "full", "11", "tensorflow 22", "0.50",
        "50", "tensorflow 100", "0.50", "50 %",
    )  # fmt: skip


def test_all_figures_have_a_line_for_who_was_left_out() -> None:
    rows = report.details(results()).rows
    assert {len(r) for r in rows} == {15}
    assert rows[3][:4] == (
        "MobileNetV2 224, batch 2",
        "full",
        "ort",
        "left out: not installed",
    )


def with_onnx() -> Results:
    found = results()
    found.cases[0].peers[3] = measured("ort", [30.0], [40.0], peak=400 << 20)
    found.cases[0].peers.append(measured("pockc-onnx", [15.0], [10.0], peak=100 << 20))
    return found


def test_the_backend_onnx_is_ours_and_stands_beside_the_training_of_onnx_runtime() -> None:
    assert report.through_onnx(results()).rows == []
    (row,) = report.through_onnx(with_onnx()).rows
    assert row == (
        "MobileNetV2 224, batch 2", "full", "12.5", "35", "0.38", "40", "11",
        "100", "400", "0.25", "200", "50",
    )  # fmt: skip
    assert "tensorflow 22" in report.summary(with_onnx()).rows[0]
    assert report.markdown(report.through_onnx(with_onnx())) in report.readme_section(
        with_onnx()
    )


def test_growth_compares_with_the_arithmetic() -> None:
    both = merge(results(SMALL), results(LARGE, factor=2.0))
    rows = report.growth(both).rows
    assert rows[0] == ("MobileNetV2 224, batch 2", "batch", "pockc", "2.00", "2.00", "1.00")
    assert not report.growth(results()).rows


def test_a_failure_of_the_backend_onnx_is_a_problem() -> None:
    found = with_onnx()
    found.cases[0].peers[-1].failed = "[slug] no"
    assert report.problems(found) == ["W1-batch2-full: pockc-onnx was not measured: [slug] no"]


def test_a_failure_of_pockc_and_a_wrong_loss_are_problems() -> None:
    found = results()
    assert report.problems(found) == []
    found.cases[0].peers[1].first_loss = 3.0
    found.cases[0].peers[0].failed = "[slug] no"
    assert len(report.problems(found)) == 2


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_results(results(), tmp_path / "new" / "r.json")
    assert read_results(tmp_path / "new" / "r.json") == results()


def test_a_run_replaces_its_own_cases_only() -> None:
    both = merge(merge(results(SMALL), results(LARGE)), results(SMALL, factor=3.0))
    assert [c.key for c in both.cases] == [SMALL.key, LARGE.key]
    assert both.cases[0].gflop == pytest.approx(6.6)


def test_the_section_of_a_readme_is_replaced_and_nothing_else() -> None:
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.insert_section(text, "new\n")
    assert once == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    assert report.insert_section(once, "new\n") == once


@pytest.mark.parametrize("text", ["", report.BEGIN, f"{report.END}{report.BEGIN}"])
def test_a_readme_without_its_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected one line"):
        report.insert_section(text, "new")


def test_the_readme_command_inserts_the_last_run(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"a\n{report.BEGIN}\n{report.END}\nb\n", encoding="utf-8")
    arguments = ["readme", "--file", str(readme), "--output", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 1
    write_results(results(), tmp_path / "benchmark.json")
    assert CliRunner().invoke(app, arguments).exit_code == 0
    text = readme.read_text(encoding="utf-8")
    assert "| MobileNetV2 224, batch 2 | full | 11 | tensorflow 22 | 0.50 |" in text
    assert "2026-01-02, a machine; 2 threads, f32, SGD; pockc at abc." in text


def test_a_chart_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install matplotlib")
    from tests.bench import chart

    chart.draw(results(), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--set", "mian"], "choose from: main, families, scaling"),
        (["run", "--only", "W9*"], "W1-batch8-full"),
        (["run", "--peers", "pockc,jax"], "no peer jax"),
        (["run", "--python", "tensorflow"], "expected NAME=VALUE"),
        (["profile", "W2"], "choose from: W1"),
        (["profile", "W1", "--mode", "half"], "full, sparse"),
        (["profile", "W1", "--size", "depth=2"], "resolution, classes"),
    ],
)
def test_a_misspelled_option_is_told_the_choices(arguments: list[str], words: str) -> None:
    run = CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
    assert run.exit_code == 2
    assert words in run.output


@pytest.mark.needs_cc
def test_the_peak_kernel_computes_what_it_counts() -> None:
    sums = np.arange(machine.library().bench_fma_floats(), dtype=np.float32)
    expected = sums.copy()
    for _ in range(3):
        expected = expected * np.float32(0.5) + np.float32(1.0)
    assert machine.fma(3, 0.5, 1.0, sums) == 3 * sums.size
    assert np.array_equal(sums, expected)
    with pytest.raises(ValueError, match="floats"):
        machine.fma(1, 0.5, 1.0, np.zeros(3, np.float32))


@pytest.mark.needs_cc
def test_the_triad_adds_a_multiple() -> None:
    b, c, to = (np.arange(9, dtype=np.float32) for _ in range(3))
    machine.library().bench_triad(9, 3.0, *(a.ctypes.data for a in (b, c, to)))
    assert np.array_equal(to, b + 3 * c)
