"""The links, the metadata, and what `import pockc` loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKS = ("passes", "backends", "runtime")


@pytest.mark.parametrize("name", LINKS)
def test_link_is_relative_and_resolves_to_the_top_level_folder(name: str) -> None:
    link = ROOT / "pockc" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert link.resolve() == ROOT / name


@pytest.mark.parametrize("module", ["pockc", "pockc.runtime", "pockc.errors"])
def test_import_on_the_device_loads_no_large_library(module: str) -> None:
    assert loaded_by(f"import {module}") == set()


def test_the_check_for_large_libraries_can_fail() -> None:
    assert loaded_by("import pydantic") == {"pydantic"}


def loaded_by(statement: str) -> set[str]:
    """Return the large libraries that a fresh interpreter holds after a statement."""
    large = "{'torch', 'tvm', 'onnx', 'pydantic', 'typer', 'rich', 'yaml', 'safetensors'}"
    code = f"import sys; {statement}; print(*({large} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_a_model_file_does_not_need_pockc() -> None:
    for path in sorted(ROOT.glob("examples/*/model.py")):
        assert "pockc" not in path.read_text("utf-8"), path


def test_every_example_has_its_four_files() -> None:
    folders = sorted(path.parent.name for path in (ROOT / "examples").glob("*/model.py"))
    assert folders == ["decoder", "image", "sensor", "text"]
    for folder in folders:
        for name in ("model.py", "config.yaml", "data.py", "README.md"):
            assert (ROOT / "examples" / folder / name).is_file(), f"{folder}/{name}"


def test_the_repository_holds_no_weights_and_no_data() -> None:
    done = subprocess.run(
        ["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    names = [line.split("\t")[1] for line in done.stdout.splitlines()]
    large = [n for n in names if (ROOT / n).is_file() and (ROOT / n).stat().st_size > 500_000]
    assert large == []
    assert [n for n in names if n.endswith((".npz", ".safetensors", ".gguf", ".so"))] == []
