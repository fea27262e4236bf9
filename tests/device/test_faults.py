"""Power cuts, full disks, damage, two at once: refused, or as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pockc.artifact import write_artifact
from pockc.backends.native import link, product_of
from pockc.runtime import load
from pockc.runtime.manifest import STEP_FILE
from pockc.runtime.safetensors import read_header
from tests.device.conftest import Command, save_data
from tests.runtime.toy import toy_contents, toy_machine, toy_plan, write_toy

KILLS = 200
PLACES = 1000


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.slow
def test_a_run_that_is_killed_200_times_ends_as_the_one_that_was_not(
    pock_run: Command, tmp_path: Path, libraries: dict[str, Path]
) -> None:
    data = save_data(tmp_path / "train.npz", 4002)
    whole = write_toy(tmp_path / "whole.pock", libraries["plain"])
    parts = write_toy(tmp_path / "parts.pock", libraries["plain"])
    run = tmp_path / "run"
    file = run / "checkpoint.safetensors"
    command = [
        "--data", data, "--epochs", 40, "--lr", 0.01, "--schedule", "cosine", "--seed", 3,
    ]  # fmt: skip
    killed = ["--checkpoint", run, "--resume"]
    often = (pock_run.path, "train", parts, *command, *killed, "--checkpoint-every", 3)
    arguments = [str(a) for a in often]
    rng = random.Random(1)
    done, moments = 0, set()
    for _ in range(KILLS):
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as child:
            time.sleep(rng.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL, "it was done before it was killed"
        if file.exists():
            step = int(read_header(file).metadata["pock.step"])
            assert step >= done  # nothing that was written is lost
            done = step
            moments.add(step)
    assert len(moments) > 20
    pock_run.good("train", parts, *command, *killed)
    pock_run.good("train", whole, *command)
    assert content(parts) == content(whole)
    assert load(parts).step == 40000


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


def test_a_disk_that_is_full_loses_nothing(
    pock_run: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ("train", toy_path, "--data", data, "--checkpoint", run, "--no-save")
    pock_run.good(*options, "--epochs", 1)
    before = content(run) | content(toy_path)
    done = pock_run(*options, "--epochs", 3, "--resume", preexec_fn=limit_file_size)
    assert done.returncode == 1
    assert done.stderr == (
        f"[write-failed] cannot write {run / 'checkpoint.safetensors'}: File too large; what "
        "was there before is untouched\n    fix  free some space, or choose another place\n"
    )
    done = pock_run("train", toy_path, "--data", data, preexec_fn=limit_file_size)
    assert (done.returncode, "cannot write" in done.stderr) == (1, True)
    done = pock_run("predict", toy_path, "--data", data, "-o", tmp_path / "o.npy",
                    preexec_fn=limit_file_size)  # fmt: skip
    assert (done.returncode, "cannot write" in done.stderr) == (1, True)
    assert content(run) | content(toy_path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"run", "toy.pock", "train.npz"}
    pock_run.good(*options, "--epochs", 3, "--resume")


def test_a_device_without_space_is_told(
    pock_run: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    """A file system of 16 KiB, if this process may mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a file system; RLIMIT_FSIZE is tested above")
    try:
        filler = small / "filler"
        command = (
            "train", toy_path, "--data", data, "--no-save", "--checkpoint", small,
            "--epochs", 2, "--resume",
        )  # fmt: skip
        pock_run.good(*command[:-3])
        before = (small / "checkpoint.safetensors").read_bytes()
        free = os.statvfs(small)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize))
        assert "No space left on device" in pock_run.bad(*command)
        assert (small / "checkpoint.safetensors").read_bytes() == before
        filler.unlink()
        pock_run.good(*command)
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may look into, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def become_nobody() -> None:
    if os.geteuid() == 0:  # root may write everywhere
        os.setgid(65534)
        os.setuid(65534)


def test_a_folder_that_cannot_be_written_is_told_before_the_run(
    pock_run: Command, libraries: dict[str, Path], open_folder: Path
) -> None:
    toy_path = write_toy(open_folder / "toy.pock", libraries["plain"])
    data = save_data(open_folder / "train.npz", 14)
    toy_path.chmod(0o555)
    run = Command(shutil.copytree(pock_run.path.parent, open_folder / "bin") / "pock-run")
    for folder in (run.path.parent, toy_path):
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o755)
    locked = open_folder / "locked"
    locked.mkdir(0o555)
    for option, path in (("--save", locked / "t.pock"), ("--checkpoint", locked / "run")):
        keep = () if option == "--save" else ("--no-save",)
        command = ("train", toy_path, "--data", data, option, path, "--log-json", *keep)
        done = run(*command, preexec_fn=become_nobody)
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith("[write-failed] cannot write "), done.stderr
        assert "Permission denied" in done.stderr
        assert "step" not in done.stdout
    # The artifact itself is where the result goes unless it is told otherwise.
    done = run("train", toy_path, "--data", data, preexec_fn=become_nobody)
    assert (done.returncode, done.stdout) == (1, "")
    # Reading needs no right to write.
    assert run("eval", toy_path, "--data", data, preexec_fn=become_nobody).returncode == 0


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """Cut off at a random place, or with a random bit flipped."""
    place = rng.randrange(len(whole))
    if rng.random() < 0.3:
        return whole[:place]
    changed = bytearray(whole)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def refused_or_same(pock_run: Command, command: tuple[object, ...], expected: str) -> bool:
    done = pock_run(*command)
    if done.returncode == 0:
        assert done.stdout == expected
        return False
    assert done.returncode == 1, f"{done.returncode}: {done.stderr}"
    assert done.stderr.startswith("["), done.stderr
    return True


@pytest.mark.slow
def test_no_damage_of_an_artifact_gets_through(
    pock_run: Command, toy_path: Path, data: Path
) -> None:
    command = ("eval", toy_path, "--data", data)
    expected, rng, refused = pock_run.good(*command), random.Random(2), 0
    files = sorted(toy_path.iterdir())
    for _ in range(PLACES):
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(damaged(whole, rng))
        refused += refused_or_same(pock_run, command, expected)
        file.write_bytes(whole)
    assert refused > PLACES * 0.98
    assert pock_run.good(*command) == expected


@pytest.mark.slow
def test_no_damage_of_a_checkpoint_gets_through(
    pock_run: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "out.safetensors"
    pock_run.good("train", toy_path, "--data", data, "--checkpoint", run, "--no-save")
    command = ("export", toy_path, "--checkpoint", run, "--to", out)
    expected = pock_run.good(*command)
    exported, rng, refused = out.read_bytes(), random.Random(3), 0
    file = run / "checkpoint.safetensors"
    whole = file.read_bytes()
    for _ in range(PLACES):
        out.unlink(missing_ok=True)
        file.write_bytes(damaged(whole, rng))
        if refused_or_same(pock_run, command, expected):
            refused += 1
            assert not out.exists()
        else:
            assert out.read_bytes() == exported
    assert refused > PLACES * 0.95  # all but those in the name of the hash itself


def test_a_damaged_checkpoint_offers_the_one_before(
    pock_run: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    options = ("train", toy_path, "--data", data, "--no-save", "--checkpoint", tmp_path)
    pock_run.good(*options, "--epochs", 2)
    file = tmp_path / "checkpoint.safetensors"
    broken = bytearray(file.read_bytes())
    broken[-1] ^= 1
    file.write_bytes(broken)
    assert pock_run.bad(*options, "--epochs", 3, "--resume") == (
        f"[damaged-tensors] {file} is no valid safetensors file: its content does not match "
        f"its own hash\n    fix  use the one before it: {file}.previous"
    )
    Path(f"{file}.previous").replace(file)
    events = pock_run.events(*options, "--epochs", 3, "--resume")
    assert [e["done"] for e in events if e["event"] == "resumed"] == [3]


def test_two_processes_do_not_share_a_checkpoint(
    pock_run: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    options = ("train", toy_path, "--data", data, "--no-save", "--checkpoint", tmp_path)
    command = [str(a) for a in (pock_run.path, *options, "--epochs", 10**8, "--log-json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.readline()
        assert pock_run.bad(*options) == (
            f"[checkpoint-busy] another process is training with the checkpoint "
            f"{tmp_path / 'checkpoint.safetensors'}\n"
            "    fix  wait for it to end, or choose another --checkpoint"
        )
        child.kill()
    pock_run.good(*options)


def test_an_artifact_that_another_process_writes_is_left_alone(
    pock_run: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    import fcntl

    before = content(toy_path)
    busy = tmp_path / ".toy.pock.tmp"
    busy.mkdir()
    handle = os.open(busy, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert pock_run.bad("train", toy_path, "--data", data) == (
        f"[write-busy] another process is writing {toy_path}\n"
        "    fix  wait for it, or choose another place"
    )
    os.close(handle)
    assert content(toy_path) == before
    pock_run.good("train", toy_path, "--data", data)  # what a killed process left is taken over
    assert not busy.exists()


def test_it_refuses_what_needs_more_memory_than_there_is(
    pock_run: Command, data: Path, tmp_path: Path, libraries: dict[str, Path]
) -> None:
    plan = replace(toy_plan(), arena_bytes=1 << 30)
    kernels = libraries["plain"].parent / "toy.o"
    link(plan, {"toy": kernels.read_bytes()}, tmp_path / "step.so")
    product = product_of(plan, {STEP_FILE: tmp_path / "step.so"}, toy_machine())
    contents = replace(toy_contents(tmp_path / "step.so"), product=product)
    write_artifact(tmp_path / "large.pock", contents)

    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))

    for verb in (("eval", "--data", data), ("info", "--json")):
        done = pock_run(verb[0], tmp_path / "large.pock", *verb[1:], preexec_fn=limit_memory)
        assert done.returncode == 1
        found = re.fullmatch(
            r"\[not-enough-memory\] the artifact needs (\d+) bytes of memory; (\d+) bytes are "
            r"free and it cannot be opened\n    fix  close other programs, or compile with a "
            r"smaller batch or fewer trained tensors\n",
            done.stderr,
        )
        assert found is not None, done.stderr
        assert 1 << 30 < int(found[1]) < (1 << 30) + 65536
        assert 1 << 28 < int(found[2]) < 1 << 29
    info = json.loads(done.stdout)
    assert (info["fits"], info["arena_bytes"]) == (False, 1 << 30)


def test_a_diverged_state_is_not_saved(pock_run: Command, toy_path: Path, data: Path) -> None:
    before = content(toy_path)
    message = pock_run.bad("train", toy_path, "--data", data, "--lr", 3e38, "--epochs", 3)
    assert message.startswith("[nonfinite-")
    assert content(toy_path) == before
    assert np.isfinite(load(toy_path).state_dict()["fc.weight"]).all()
