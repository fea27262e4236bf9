"""What is no good artifact is refused before any of it is used; each message whole."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pockc.artifact import write_artifact
from pockc.errors import UserError
from pockc.runtime import library, load, opening, read_manifest
from pockc.runtime.manifest import (
    FORMAT_VERSION,
    STEP_FILE,
    Machine,
    manifest_text,
    parse_manifest,
)
from tests.runtime.toy import toy_contents


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    return str(caught.value)


def edit_manifest(path: Path, **changes: Any) -> None:
    """Change a manifest as its writer would have: the digest is right."""
    data = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(data | changes))


def test_no_folder(tmp_path: Path) -> None:
    assert message(tmp_path / "none.pock") == (
        f"[no-artifact] there is no {tmp_path}/none.pock\n"
        "    fix  give a folder that `pockc compile` or `artifact.save` wrote"
    )


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert message(tmp_path) == (
        f"[foreign-folder] {tmp_path} is no artifact: it has no manifest.json\n"
        "    fix  give a folder that `pockc compile` or `artifact.save` wrote"
    )
    assert "[foreign-folder]" in message(tmp_path / "notes.txt")


def test_a_manifest_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    assert message(tmp_path) == (
        f"[foreign-folder] {tmp_path} is no artifact: its manifest.json is another program's\n"
        "    fix  give a folder that `pockc compile` or `artifact.save` wrote"
    )


@pytest.mark.parametrize(
    ("version", "fix"),
    [
        (FORMAT_VERSION + 1, "install a newer pockc"),
        (FORMAT_VERSION - 1, "compile the model again"),
        ("new", "compile the model again"),
    ],
)
def test_another_format_version(toy_path: Path, version: object, fix: str) -> None:
    edit_manifest(toy_path, format_version=version)
    assert message(toy_path) == (
        f"[artifact-version] {toy_path} has format version {version}, "
        f"this pockc reads version {FORMAT_VERSION}\n    fix  {fix}"
    )


def test_another_machine(tmp_path: Path, libraries: dict[str, Path]) -> None:
    path = tmp_path / "pi.pock"
    contents = toy_contents(libraries["plain"])
    product = replace(contents.product, machine=Machine("rpi9", "armv99"))
    write_artifact(path, replace(contents, product=product))
    arch = os.uname().machine
    assert message(path) == (
        f"[artifact-target] {path} was compiled for target 'rpi9' (armv99, linux), "
        f"this is {arch}, linux\n    fix  compile the model for this machine: --target"
    )


def test_a_processor_that_lacks_instructions(
    tmp_path: Path, libraries: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.pock"
    arch = os.uname().machine
    machine = Machine("host", arch, features=("avx2", "amx9", "avx99"))
    contents = toy_contents(libraries["plain"])
    product = replace(contents.product, machine=machine)
    write_artifact(path, replace(contents, product=product))
    monkeypatch.setattr(opening, "cpu_features", lambda: frozenset({"avx2"}))
    assert message(path) == (
        f"[artifact-target] {path} was compiled for target 'host', whose code needs what this "
        "processor lacks: amx9, avx99\n    fix  compile the model for this machine: --target"
    )


def test_missing_files(toy_path: Path) -> None:
    (toy_path / "step.so").unlink()
    (toy_path / "graph.txt.xz").unlink()
    assert message(toy_path) == (
        f"[missing-file] {toy_path} lacks its file graph.txt.xz\n"
        "    fix  copy the whole folder again\n"
        f"[missing-file] {toy_path} lacks its file step.so\n"
        "    fix  copy the whole folder again"
    )


def test_a_truncated_file(toy_path: Path) -> None:
    state = toy_path / "state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[:-1])
    assert message(toy_path) == (
        f"[damaged-file] {state} is damaged: it has {len(whole) - 1} bytes, "
        f"{len(whole)} were written\n"
        "    fix  copy the folder again, or compile the model again"
    )


def test_a_flipped_bit(toy_path: Path) -> None:
    file = toy_path / "step.so"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    assert message(toy_path) == (
        f"[damaged-file] {file} is damaged: its SHA-256 is not the one in the manifest\n"
        "    fix  copy the folder again, or compile the model again"
    )


def test_every_damage_of_the_manifest_is_refused(toy_path: Path) -> None:
    file = toy_path / "manifest.json"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 300):
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(0, 8))
        file.write_bytes(content)
        with pytest.raises(UserError):
            load(toy_path)
    for length in rng.integers(0, len(whole) - 1, 100):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load(toy_path)
    file.write_bytes(whole)
    load(toy_path)


def test_a_manifest_that_was_edited_is_damaged(toy_path: Path) -> None:
    edit_manifest(toy_path, batch_rows=8)
    file = toy_path / "manifest.json"
    assert message(toy_path) == (
        f"[damaged-file] {file} is damaged: its content does not match its own hash\n"
        "    fix  copy the folder again, or compile the model again"
    )


def test_a_library_that_the_system_does_not_load(
    tmp_path: Path, libraries: dict[str, Path]
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"\x7fELF" + bytes(200))
    path = tmp_path / "b.pock"
    contents = toy_contents(libraries["plain"])
    product = replace(contents.product, files={STEP_FILE: broken})
    write_artifact(path, replace(contents, product=product))
    text = message(path)
    assert text.startswith(f"[library-load] the system does not load {path / 'step.so'}: ")
    assert text.endswith("\n    fix  compile the model for this machine: --target")
    assert "/proc/self" not in text


def test_too_little_memory(toy_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = load(toy_path, threads=1).memory.total_bytes
    monkeypatch.setattr(library, "available_bytes", lambda: 5)
    with pytest.raises(UserError) as caught:
        load(toy_path, threads=1)
    assert str(caught.value) == (
        f"[not-enough-memory] the artifact needs {needed} bytes of memory; 5 bytes are free "
        "and it cannot be opened\n"
        "    fix  close other programs, or compile with a smaller batch or fewer trained "
        "tensors"
    )


def test_another_interface_version(toy_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "ABI_VERSION", 99)
    assert message(toy_path) == (
        f"[library-abi] {toy_path / 'step.so'} speaks version 3 of the runtime's interface, "
        "this pockc speaks 99\n"
        "    fix  compile the model again, or install the pockc that compiled it"
    )


def test_a_manifest_survives_being_written_and_read(toy_path: Path) -> None:
    manifest = read_manifest(toy_path)
    assert parse_manifest(manifest_text(manifest)) == manifest
    assert manifest.class_names == ("a", "b", "c", "d", "e")
    assert manifest.entries["train_step"].inputs[1].values is not None
    assert manifest.entries["predict"].inputs[0].values is None
    assert manifest.report == {"scheme": {"fc.weight": "all"}}
