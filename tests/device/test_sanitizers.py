"""`pock-run` as one program with everything in it, under sanitizers, and what fuzzing found.

That program is the static build: the model's kernels and plan are linked in.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pockc.backends.native import table_source
from pockc.backends.native.device import command_sources, include_flags, library_sources
from pockc.runtime import load
from tests.device.conftest import Command, save_data
from tests.device.test_faults import content, damaged, refused_or_same
from tests.runtime.test_c import COMPILER, HERE, ROOT, WARNINGS, runtime_sources
from tests.runtime.toy import SOURCE, toy_data, toy_plan, write_toy

CORPUS = HERE / "fuzz" / "corpus"

pytestmark = [
    pytest.mark.needs_cc,
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler with sanitizers"),
]


def compiled(out: Path, sanitizers: str, *arguments: object) -> Path:
    flags = [*WARNINGS, "-D_POSIX_C_SOURCE=200809L", "-g", "-O1", f"-fsanitize={sanitizers}"]
    flags += ["-fno-sanitize-recover=all", *include_flags()]
    command = [str(COMPILER), *flags, *map(str, arguments), "-o", str(out)]
    subprocess.run([*command, "-ldl", "-lm", "-lpthread"], check=True)
    return out


def static_program(folder: Path, sanitizers: str) -> Command:
    """`pock-run` for the toy alone."""
    plan = folder / "plan.c"
    plan.write_text(table_source(toy_plan()))
    device = [f for f in library_sources() if f.parent.name == "device"]
    sources = [*device, *command_sources(), *runtime_sources(), plan, SOURCE]
    return Command(compiled(folder / "pock-run", sanitizers, "-DPOCK_STATIC", *sources))


@pytest.fixture(scope="session")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return static_program(tmp_path_factory.mktemp("static"), "address,undefined")


@pytest.fixture(scope="session")
def checked_dynamic(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The program that loads `step.so`."""
    out = tmp_path_factory.mktemp("dynamic") / "pock-run"
    sources = [*library_sources(), *command_sources()]
    return Command(compiled(out, "address,undefined", *sources))


@pytest.mark.parametrize("program", ["checked", "checked_dynamic"])
def test_every_verb_is_clean(
    program: str, request: pytest.FixtureRequest, toy_path: Path, tmp_path: Path
) -> None:
    run: Command = request.getfixturevalue(program)
    x, target = toy_data(14)
    data, archive = save_data(tmp_path / "d.npz", 14), tmp_path / "c.npz"
    np.savez_compressed(archive, x=x.astype("f8"), target=target.astype("u1"))
    if program == "checked":
        (toy_path / "step.so").unlink()  # a static program brings its own
    keep = ("--checkpoint", tmp_path / "run", "--checkpoint-every", 2)
    run.good("info", toy_path)
    run.good("train", toy_path, "--data", data, "--eval", archive, *keep, "--epochs", 2)
    run.good("train", toy_path, "--data", archive, *keep, "--epochs", 3, "--resume")
    assert "loss" in run.good("eval", toy_path, "--data", archive, "--threads", 3)
    run.good("predict", toy_path, "--data", data, "-o", tmp_path / "o.npy")
    run.good("predict", toy_path, "--data", data)
    run.good("bench", toy_path, "--steps", 3, "--json")
    run.good("export", toy_path, "--to", tmp_path / "e.safetensors")
    run.good("export", toy_path, "--checkpoint", tmp_path / "run", "--to", tmp_path / "e")
    run.good("train", toy_path, "--data", data, "--save", tmp_path / "other.pock")


def test_frozen_tensors_with_other_values_are_saved_cleanly(
    checked_dynamic: Command, toy_path: Path, tmp_path: Path
) -> None:
    with load(toy_path) as artifact:
        state = artifact.state_dict()
        state["mean"] = state["mean"] + 1
        artifact.load_state(state)
        artifact.train_step(*toy_data(4))
        artifact.save_checkpoint(tmp_path / "checkpoint.safetensors")
    data = save_data(tmp_path / "d.npz", 14)
    options = ("--data", data, "--checkpoint", tmp_path, "--resume", "--epochs", 2)
    checked_dynamic.good("train", toy_path, *options)
    again = load(toy_path)
    assert again.step == 6
    np.testing.assert_array_equal(again.state.array("mean"), state["mean"])
    np.testing.assert_array_equal(again.state.array("bn.weight"), state["bn.weight"])


@pytest.mark.slow
def test_damage_is_refused_cleanly(
    checked: Command, toy_path: Path, tmp_path: Path, data: Path
) -> None:
    run, rng = tmp_path / "run", random.Random(4)
    checked.good("train", toy_path, "--data", data, "--checkpoint", run, "--no-save")
    commands = {
        data: ("eval", toy_path, "--data", data, "--no-verify"),
        run / "checkpoint.safetensors": (
            "export", toy_path, "--checkpoint", run, "--to", tmp_path / "e.safetensors",
        ),
        **{
            f: ("eval", toy_path, "--data", data)
            for f in sorted(toy_path.iterdir()) if f.name != "step.so"
        },
    }  # fmt: skip
    for file, command in commands.items():
        expected, whole = checked.good(*command), file.read_bytes()
        for _ in range(40):
            file.write_bytes(damaged(whole, rng))
            if file != data:
                refused_or_same(checked, command, expected)
            else:  # numbers without a checksum may be others
                assert checked(*command).returncode in (0, 1)
        file.write_bytes(whole)


@pytest.mark.slow
def test_files_that_nobody_verified_do_no_harm(
    checked: Command, toy_path: Path, data: Path
) -> None:
    """With `--no-verify` the readers stand alone."""
    rng = random.Random(5)
    for name in ("state.safetensors", "frozen.safetensors"):
        file = toy_path / name
        whole = file.read_bytes()
        for _ in range(60):
            file.write_bytes(damaged(whole, rng))
            done = checked("train", toy_path, "--data", data, "--no-save", "--no-verify")
            assert done.returncode in (0, 1), done.stderr
        file.write_bytes(whole)


def test_threads_do_not_race(tmp_path: Path, toy_path: Path, data: Path) -> None:
    plain = static_program(tmp_path, "thread")
    fixed = shutil.which("setarch")  # its shadow memory may not fit random addresses
    program = plain
    if fixed is not None:
        script = tmp_path / "fixed"
        script.write_text(f'#!/bin/sh\nexec {fixed} -R {plain.path} "$@"\n')
        script.chmod(0o755)
        program = Command(script)
    before = content(toy_path)
    for threads in (1, 2, 4):
        out = tmp_path / f"{threads}.pock"
        program.good(
            "train", toy_path, "--data", data, "--eval", data, "--epochs", 3,
            "--threads", threads, "--save", out,
        )  # fmt: skip
        assert content(out) == content(tmp_path / "1.pock")
    assert content(toy_path) == before


def test_what_fuzzing_found_is_read_cleanly(tmp_path: Path) -> None:
    found = sorted(CORPUS.iterdir())
    assert len(found) > 20
    sources = [*library_sources(), HERE / "fuzz" / "readers.c"]
    flags = ("-DREPLAY", "-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION")
    program = compiled(tmp_path / "readers", "address,undefined", *flags, *sources)
    done = subprocess.run(
        [str(program), *map(str, found)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_sources_are_one_program_too(tmp_path: Path, toy_path: Path) -> None:
    """As the README says: every file at once, by any compiler."""
    out = tmp_path / "pock-run"
    sources = [*library_sources(), *command_sources()]
    flags = [*WARNINGS, "-D_POSIX_C_SOURCE=200809L", "-Os", *include_flags()]
    command = [str(COMPILER), *flags, *map(str, sources), "-o", str(out), "-ldl", "-lm"]
    subprocess.run([*command, "-lpthread"], check=True)
    assert "batch     4 rows" in Command(out).good("info", toy_path)
    assert ROOT.name == "runtime"


def test_a_static_program_refuses_the_artifact_of_another_model(
    checked: Command, tmp_path: Path, libraries: dict[str, Path], data: Path
) -> None:
    other = write_toy(tmp_path / "micro.pock", libraries["micro"], 2)
    assert checked.bad("eval", other, "--data", data).startswith("[")
