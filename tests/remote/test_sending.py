"""Sending artifacts: what goes, what stays, and what is never lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pockc.errors import UserError
from pockc.remote import (
    Connection,
    Deployed,
    SshOptions,
    bring_back,
    connect,
    deploy,
    send_files,
)
from pockc.runtime import load
from pockc.runtime.manifest import MANIFEST_FILE, STATE_FILE, STEP_FILE, manifest_text
from pockc.runtime.opening import check_files, read_manifest
from tests.remote.conftest import Machine
from tests.runtime.toy import link_toy, toy_data, write_toy


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def artifact(tmp_path: Path, library: Path) -> Path:
    return write_toy(tmp_path / "toy.pock", library)


def _quiet(name: str, done: int, total: int) -> None:
    assert done <= total, name


def _deploy(
    artifact: Path, connection: Connection, machine: Machine, *, overwrite: bool = False
) -> Deployed:
    return deploy(artifact, connection, machine.place(), _quiet, overwrite=overwrite)


def _train(path: Path) -> None:
    with load(path) as opened:
        opened.train_step(*toy_data(opened.batch_rows), lr=0.1)
        opened.save(path)


def test_an_artifact_arrives_whole_and_again_sends_nothing(
    artifact: Path, connection: Connection, machine: Machine
) -> None:
    done = _deploy(artifact, connection, machine)
    there = machine.home / "toy.pock"
    check_files(there, read_manifest(there))
    assert done.path == "toy.pock"
    assert set(done.sent) == {p.name for p in artifact.iterdir()}
    assert done.sent_bytes == sum(p.stat().st_size for p in artifact.iterdir())
    assert done.verified
    again = _deploy(artifact, connection, machine)
    assert (again.sent, again.sent_bytes) == ((), 0)
    assert set(again.kept) == set(done.sent)


def test_only_what_changed_is_sent(
    artifact: Path, connection: Connection, machine: Machine
) -> None:
    _deploy(artifact, connection, machine)
    _train(artifact)
    assert _deploy(artifact, connection, machine).sent == (STATE_FILE, MANIFEST_FILE)
    there = machine.home / "toy.pock"
    check_files(there, read_manifest(there))


def test_weights_that_were_trained_there_are_not_overwritten(
    artifact: Path, connection: Connection, machine: Machine
) -> None:
    _deploy(artifact, connection, machine)
    there = machine.home / "toy.pock"
    _train(there)
    trained = (there / STATE_FILE).read_bytes()
    with pytest.raises(UserError) as caught:
        _deploy(artifact, connection, machine)
    assert str(caught.value) == (
        "[trained-there] the weights in toy.pock are not those that were deployed: they were "
        "trained there\n"
        "    fix  give --overwrite to lose them, or deploy to another folder"
    )
    assert (there / STATE_FILE).read_bytes() == trained
    _deploy(artifact, connection, machine, overwrite=True)
    assert (there / STATE_FILE).read_bytes() == (artifact / STATE_FILE).read_bytes()


def test_what_arrived_before_an_interruption_is_not_sent_again(
    artifact: Path, connection: Connection, machine: Machine
) -> None:
    there = machine.home / "toy.pock"
    there.mkdir()
    shutil.copyfile(artifact / STEP_FILE, there / f"{STEP_FILE}.incoming")
    (there / f"{STATE_FILE}.incoming").write_bytes(b"cut")
    done = _deploy(artifact, connection, machine)
    assert STEP_FILE not in done.sent
    assert STATE_FILE in done.sent
    check_files(there, read_manifest(there))
    assert not list(there.glob("*.incoming"))


def test_a_machine_without_sha256sum_gets_everything(
    artifact: Path, connection: Connection, machine: Machine
) -> None:
    hidden = machine.programs / "sha256sum"
    target = hidden.readlink()
    hidden.unlink()
    try:
        for _ in range(2):
            done = _deploy(artifact, connection, machine)
            assert not done.verified
            assert len(done.sent) == len(list(artifact.iterdir()))
    finally:
        hidden.symlink_to(target)
    there = machine.home / "toy.pock"
    check_files(there, read_manifest(there))


def test_what_is_damaged_on_the_way_is_found(
    artifact: Path,
    connection: Connection,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send = Connection.send

    def damage(self: Connection, source: Path, target: str, *rest: object) -> None:
        send(self, source, target, *rest)  # type: ignore[arg-type]
        if source.name == STEP_FILE:
            self.run(f"printf x >> {target}")

    monkeypatch.setattr(Connection, "send", damage)
    with pytest.raises(
        UserError, match=r"\[deploy-damaged\] toy.pock/step.so.incoming has SHA"
    ):
        _deploy(artifact, connection, machine)
    assert not (machine.home / "toy.pock" / MANIFEST_FILE).exists()


def test_an_artifact_for_another_processor_is_not_sent(
    artifact: Path, connection: Connection, machine: Machine
) -> None:
    path = artifact / MANIFEST_FILE
    data = json.loads(path.read_text())
    other = "aarch64" if data["machine"]["arch"] != "aarch64" else "x86_64"
    manifest = read_manifest(artifact)

    changed = replace(manifest, machine=replace(manifest.machine, arch=other, target="rpi4"))
    path.write_text(manifest_text(changed))
    with pytest.raises(UserError) as caught:
        _deploy(artifact, connection, machine)
    assert str(caught.value) == (
        f"[deploy-target] the artifact was compiled for target 'rpi4' ({other}), "
        f"127.0.0.1 is {manifest.machine.arch}\n"
        "    fix  compile the model for that machine: --target"
    )
    assert not list((machine.home / "toy.pock").iterdir())


def test_data_is_sent_once(tmp_path: Path, connection: Connection, machine: Machine) -> None:
    data = tmp_path / "a file.npz"
    data.write_bytes(b"data")
    sent = []
    for _ in range(2):
        paths = send_files(connection, machine.place("work"), [data], lambda *p: sent.append(p))
        assert paths == {data: "work/data/a file.npz"}
    assert sent == [("a file.npz", 4, 4)]
    assert (machine.home / "work" / "data" / "a file.npz").read_bytes() == b"data"


def test_a_folder_of_data_is_sent_file_by_file(
    tmp_path: Path, connection: Connection, machine: Machine
) -> None:
    folder, other = tmp_path / "one" / "x", tmp_path / "two" / "x"
    for made in (folder, other):
        made.mkdir(parents=True)
        (made / "input.npy").write_bytes(b"1")
        (made / "target.npy").write_bytes(b"2")
    assert send_files(connection, machine.place(), [folder], _quiet) == {folder: "data/x"}
    assert (machine.home / "data" / "x" / "target.npy").read_bytes() == b"2"
    (folder / "target.npy").write_bytes(b"3")
    sent = []
    send_files(connection, machine.place(), [folder], lambda *p: sent.append(p))
    assert sent == [("target.npy", 1, 1)]
    with pytest.raises(UserError, match=r"\[data-file\] two of these have the same name: "):
        send_files(connection, machine.place(), [folder, other], _quiet)


def test_a_file_comes_back_whole_or_not_at_all(
    tmp_path: Path, connection: Connection, machine: Machine
) -> None:
    (machine.home / "result").write_bytes(b"tuned")
    connection.fetch("result", tmp_path / "result")
    assert (tmp_path / "result").read_bytes() == b"tuned"
    with pytest.raises(UserError, match=r"\[remote-failed\].*No such file"):
        connection.fetch("nothing", tmp_path / "result")
    assert (tmp_path / "result").read_bytes() == b"tuned"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_machine_that_does_not_answer_is_told(machine: Machine) -> None:
    options = SshOptions(1, machine.options.options)
    with (
        pytest.raises(
            UserError, match=r"\[ssh-failed\] ssh does not reach 127.0.0.1: .*refused"
        ),
        connect(machine.destination, options),
    ):
        pass


def test_a_missing_ssh_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as caught, connect("pi", SshOptions()):
        pass
    assert str(caught.value) == (
        "[no-ssh] there is no program 'ssh'\n    fix  install OpenSSH's client"
    )


def test_what_was_trained_there_comes_home(
    artifact: Path, tmp_path: Path, connection: Connection, machine: Machine
) -> None:
    _deploy(artifact, connection, machine)
    there = machine.home / "toy.pock"
    _train(there)
    tuned = tmp_path / "tuned.pock"
    assert bring_back(connection, "toy.pock", artifact, tuned) == (MANIFEST_FILE, STATE_FILE)
    check_files(tuned, read_manifest(tuned))
    with load(there) as a, load(tuned) as b:
        assert (a.step, b.step) == (1, 1)
        assert (a.state_dict()["fc.weight"] == b.state_dict()["fc.weight"]).all()
    # Home again it is what is there: nothing is sent, and what follows here is no loss there.
    assert bring_back(connection, "toy.pock", artifact, artifact) == (MANIFEST_FILE, STATE_FILE)
    assert _deploy(artifact, connection, machine).sent == ()
    _train(artifact)
    assert _deploy(artifact, connection, machine).sent == (STATE_FILE, MANIFEST_FILE)


def test_what_comes_home_damaged_changes_nothing(
    artifact: Path, connection: Connection, machine: Machine
) -> None:
    _deploy(artifact, connection, machine)
    there = machine.home / "toy.pock"
    _train(there)
    before = {p.name: p.read_bytes() for p in artifact.iterdir()}
    with (there / STATE_FILE).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(UserError, match=r"\[damaged-file\].*state.safetensors.*SHA-256"):
        bring_back(connection, "toy.pock", artifact, artifact)
    assert {p.name: p.read_bytes() for p in artifact.iterdir()} == before
    assert [p.name for p in artifact.parent.iterdir()] == ["toy.pock"]
