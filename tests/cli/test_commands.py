"""Commands on an artifact that is there already."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pockc.runtime import load
from pockc.runtime.opening import read_graph_text
from tests.support import Command

GRAPH = """\
graph t {
  %x : f32[4,8] = input batch "x"
  %w : f32[8,8] = input param "w"
  %h : f32[4,8] = matmul(%x, %w)
  %dead : f32[4,8] = tanh(%h)
  output prediction "0" %h
}
"""


def test_help_names_every_command_and_shows_examples(pockc: Command) -> None:
    status, out, _ = pockc("--help")
    assert status == 0
    names = ("compile", "train", "eval", "predict", "inspect", "export", "opt", "deploy",
             "fetch", "bench", "runtime", "targets")  # fmt: skip
    assert [n for n in names if n not in out] == []
    for name in names[:-1]:
        status, out, _ = pockc(name, "--help")
        assert status == 0
        assert "Example" in out


def test_a_wrong_command_line_is_status_2(pockc: Command) -> None:
    for wrong in (("train",), ("trian",), ("train", "x", "--data", "y", "--epochs", "0")):
        status, _, err = pockc(*wrong)
        assert status == 2
        assert "Error" in err


def test_training_replaces_the_weights_of_the_artifact(
    pockc: Command, toy_path: Path, data: Path
) -> None:
    with load(toy_path) as before:
        old = before.state_dict()["fc.weight"]
    status, out, err = pockc(
        "train", toy_path, "--data", data, "--eval", data, "--epochs", 3, "--lr", 0.05
    )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith("10 samples, batches of 4, 2 threads")
    assert lines[1].startswith("before   loss ")
    assert re.match(r"epoch 3  loss [\d.]+, [\d.e-]+ ms/step, .*; eval: loss .*, acc", lines[4])
    assert lines[5].startswith("done     6 steps in ")
    assert re.match(r"memory   .* planned \(state .*\), .* measured in the process", lines[6])
    assert lines[7] == f"saved    {toy_path}"
    with load(toy_path) as after:
        assert after.step == 6
        assert not np.array_equal(after.state_dict()["fc.weight"], old)


def test_training_can_leave_the_artifact_and_write_another(
    pockc: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    other, checkpoint = tmp_path / "tuned.pock", tmp_path / "last.safetensors"
    status, _, _ = pockc(
        *("train", toy_path, "--data", data, "-o", other, "--checkpoint", checkpoint),
        *("--schedule", "cosine", "--warmup", 1, "--seed", 7, "--threads", 1),
    )
    assert status == 0
    with load(toy_path) as before, load(other) as after:
        assert (before.step, after.step) == (0, 2)
        assert after.seed == 7
        trained = after.state_dict()["fc.weight"]
    np.testing.assert_array_equal(load_file(checkpoint)["fc.weight"], trained)


def test_resuming_goes_on_from_the_checkpoint(
    pockc: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole.pock", tmp_path / "parts.pock"
    command = (
        "train",
        toy_path,
        "--data",
        data,
        "--lr",
        0.05,
        "--checkpoint",
        tmp_path / "run",
    )
    assert (
        pockc("train", toy_path, "--data", data, "--lr", 0.05, "--epochs", 3, "-o", whole)[0]
        == 0
    )
    assert pockc(*command, "--epochs", 1, "-o", tmp_path / "first.pock")[0] == 0
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    status, out, _ = pockc(*command, "--epochs", 3, "--resume", "-o", parts)
    assert (status, out.splitlines()[0]) == (0, "resumed  after 2 steps")
    for name in ("state.safetensors", "manifest.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_a_loss_that_is_no_number_leaves_the_artifact_as_it_was(
    pockc: Command, toy_path: Path, data: Path
) -> None:
    with np.load(data) as file:
        arrays = dict(file)
    arrays["x"][0, 0] = np.nan
    np.savez(data, **arrays)
    before = {p.name: p.read_bytes() for p in toy_path.iterdir()}
    status, _, err = pockc("train", toy_path, "--data", data)
    assert status == 1
    assert err.startswith("[nonfinite-loss]")
    assert {p.name: p.read_bytes() for p in toy_path.iterdir()} == before


def test_eval_prints_loss_and_accuracy(pockc: Command, toy_path: Path, data: Path) -> None:
    status, out, _ = pockc("eval", toy_path, "--data", data)
    assert status == 0
    assert re.fullmatch(r"loss \d+\.\d{4}, accuracy \d\.\d{4}, samples 10\n", out)


def test_predict_prints_classes_or_writes_what_the_model_returns(
    pockc: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    status, out, _ = pockc("predict", toy_path, "--data", data)
    assert status == 0
    assert re.match(r"0: \w+ \d\.\d{3}, \w+ \d\.\d{3}, \w+ \d\.\d{3}\n1: ", out)
    assert len(out.splitlines()) == 10
    target = tmp_path / "out.npz"
    status, out, _ = pockc("predict", toy_path, "--data", data, "-o", target)
    assert out == f"wrote output0 [10, 5] to {target}\n"
    with load(toy_path) as artifact, np.load(data) as file, np.load(target) as written:
        np.testing.assert_array_equal(written["output0"], artifact.predict(file["x"]))


def test_inspect_shows_entries_and_memory(pockc: Command, toy_path: Path) -> None:
    status, out, _ = pockc("inspect", toy_path)
    assert status == 0
    assert re.search(r"train_step +\d+ kernel calls, .* takes x f32\[4, 3\], target", out)
    assert re.search(r"state +256 B +private, lasts between calls", out)
    assert re.search(r"frozen +128 B +mapped from the file", out)
    assert re.search(r"arena of train_step +\d+ B", out)


def test_inspect_prints_the_graph_as_it_is(pockc: Command, toy_path: Path) -> None:
    _, out, _ = pockc("inspect", toy_path, "--graph")
    assert out == read_graph_text(toy_path)


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pt"])
def test_export_writes_all_of_the_models_tensors(
    pockc: Command, toy_path: Path, tmp_path: Path, ending: str
) -> None:
    target = tmp_path / f"weights{ending}"
    status, out, _ = pockc("export", toy_path, "--to", target)
    with load(toy_path) as artifact:
        expected = artifact.state_dict()
    assert (status, out) == (0, f"wrote {len(expected)} tensors to {target}\n")
    found = _read(target)
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert [p.name for p in tmp_path.glob(".weights*")] == []


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        with np.load(path) as file:
            return dict(file)
    import torch

    return {n: t.numpy() for n, t in torch.load(path).items()}


def test_opt_runs_passes_on_graph_text(pockc: Command, tmp_path: Path) -> None:
    source, target = tmp_path / "in.pock", tmp_path / "out.pock"
    source.write_text(GRAPH, encoding="utf-8")
    status, out, _ = pockc("opt", source, "--passes", "eliminate_dead")
    expected = "\n".join(line for line in GRAPH.splitlines() if "%dead" not in line)
    assert (status, out.strip()) == (0, expected)
    dump = tmp_path / "dump"
    pockc("opt", source, "--passes", "eliminate_dead", "-o", target, "--dump-passes", dump)
    assert target.read_text(encoding="utf-8").strip() == expected
    assert sorted(p.name for p in dump.iterdir()) == ["00_input.pock", "01_EliminateDead.pock"]


def test_targets_are_listed(pockc: Command) -> None:
    status, out, _ = pockc("targets")
    assert status == 0
    assert "rpi4" in out
    assert "cortex-a72" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("train", "missing.pock", "--data", "x.npz"),
         "[no-artifact] there is no missing.pock\n"
         "    fix  give a folder that `pockc compile` or `artifact.save` wrote\n"),
        (("opt", "missing.txt", "--passes", "layout"),
         "[graph-file] cannot read missing.txt: [Errno 2] No such file or directory: "
         "'missing.txt'\n"
         "    fix  give a file of graph text, as --dump-passes writes them\n"),
        (("compile", "model.py", "--sparse-update", "missing.yaml"),
         "[config-file] cannot read the configuration: No such file or directory\n"
         "    at   missing.yaml\n"
         "    fix  give the path of a YAML file\n"),
    ],
)  # fmt: skip
def test_errors_have_four_parts_no_traceback_and_status_1(
    pockc: Command, arguments: tuple[str, ...], text: str
) -> None:
    assert pockc(*arguments) == (1, "", text)


def test_an_unknown_ending_of_an_export_names_the_known_ones(
    pockc: Command, toy_path: Path
) -> None:
    assert pockc("export", toy_path, "--to", "weights.bin") == (
        1,
        "",
        "[export-format] cannot tell the format of weights.bin from its ending\n"
        "    fix  let it end in .safetensors, .npz, .pt, .pth, .onnx\n",
    )


def test_where_results_go_is_checked_before_anything_long_runs(
    pockc: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    status, out, err = pockc("train", toy_path, "--data", data, "-o", foreign)
    assert (status, out) == (1, "")
    assert err.startswith(f"[foreign-folder] {foreign} is no artifact")
    away = tmp_path / "away"
    text = (
        f"[no-folder] there is no folder {away} to write out.npz to\n    fix  mkdir -p {away}\n"
    )
    assert pockc("predict", toy_path, "--data", data, "-o", away / "out.npz") == (1, "", text)
    for arguments in (
        ("train", toy_path, "--data", data, "-o", away / "out.npz"),
        ("train", toy_path, "--data", data, "--checkpoint", away / "out.npz"),
        ("export", toy_path, "--to", away / "out.npz"),
        ("compile", "model.py", "-o", away / "out.npz"),
        ("opt", "in.pock", "--passes", "layout", "-o", away / "out.npz"),
    ):
        assert pockc(*arguments) == (1, "", text)


def test_options_of_training_are_checked(pockc: Command, toy_path: Path, data: Path) -> None:
    status, _, err = pockc("train", toy_path, "--data", data, "--schedule", "cosin")
    assert status == 1
    assert err == (
        "[train-option] there is no schedule 'cosin'\n"
        "    fix  choose from: constant, linear, cosine\n"
    )
