"""Data in every form gives the same numbers, and what does not fit is refused, in full."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pockc.runtime import load
from tests.device.conftest import Command, save_data
from tests.runtime.toy import C, toy_data

ROWS = 14
X, TARGET = toy_data(ROWS)


def evaluated(pock_run: Command, toy_path: Path, data: Path) -> str:
    return pock_run.good("eval", toy_path, "--data", data)


@pytest.fixture
def expected(pock_run: Command, toy_path: Path, data: Path) -> str:
    found = evaluated(pock_run, toy_path, data)
    with load(toy_path) as artifact:
        figures = artifact.evaluate({"x": X, "target": TARGET})
    assert found == (
        f"loss {figures['loss']:.4f}, accuracy {figures['accuracy']:.4f}, samples {ROWS}\n"
    )
    return found


def test_archives_may_be_compressed(
    pock_run: Command, toy_path: Path, tmp_path: Path, expected: str
) -> None:
    np.savez_compressed(tmp_path / "c.npz", x=X, target=TARGET)
    assert evaluated(pock_run, toy_path, tmp_path / "c.npz") == expected


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize(
    "strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY]
)
def test_every_way_to_deflate_is_read(
    pock_run: Command, toy_path: Path, tmp_path: Path, level: int, strategy: int
) -> None:
    rows = 3000
    x = np.repeat(toy_data(rows // 10)[0], 10, axis=0)  # matches near and far, and literals
    target = np.arange(rows) % 5
    np.savez(tmp_path / "stored.npz", x=x, target=target)
    np.savez_compressed(tmp_path / "deflated.npz", x=x, target=target)
    rewrite(tmp_path / "deflated.npz", level, strategy)
    want = evaluated(pock_run, toy_path, tmp_path / "stored.npz")
    assert evaluated(pock_run, toy_path, tmp_path / "deflated.npz") == want


def rewrite(path: Path, level: int, strategy: int) -> None:
    """Compress the members again, by the given strategy of zlib."""
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    original = zlib.compressobj

    def compressobj(*_: object) -> Any:
        return original(level, zlib.DEFLATED, -15, 8, strategy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zlib, "compressobj", compressobj)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
            for name, content in members.items():
                archive.writestr(name, content)


def test_archives_may_be_of_the_large_kind(
    pock_run: Command, toy_path: Path, tmp_path: Path, expected: str
) -> None:
    np.savez(tmp_path / "a.npz", x=X, target=TARGET)
    with (
        zipfile.ZipFile(tmp_path / "a.npz") as small,
        zipfile.ZipFile(tmp_path / "zip64.npz", "w", zipfile.ZIP_DEFLATED) as large,
    ):
        for name in small.namelist():
            with large.open(name, "w", force_zip64=True) as member:
                member.write(small.read(name))
    assert evaluated(pock_run, toy_path, tmp_path / "zip64.npz") == expected


def test_safetensors_are_read(
    pock_run: Command, toy_path: Path, tmp_path: Path, expected: str
) -> None:
    pytest.importorskip("safetensors.numpy").save_file(
        {"x": X, "target": TARGET}, tmp_path / "d.safetensors"
    )
    assert evaluated(pock_run, toy_path, tmp_path / "d.safetensors") == expected


def test_a_folder_holds_arrays_raw_rows_and_parts_of_them(
    pock_run: Command, toy_path: Path, tmp_path: Path, expected: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "x.npy", X)
    np.save(folder / "target.npy", TARGET)
    assert evaluated(pock_run, toy_path, folder) == expected
    (folder / "x.npy").unlink()
    for i, part in enumerate(np.split(X, [3, 4, 9])):
        part.tofile(folder / f"x.{i:04}.bin")
    assert evaluated(pock_run, toy_path, folder) == expected
    (folder / "target.npy").unlink()
    for i, part in enumerate(np.split(TARGET, [5, 6])):
        np.save(folder / f"y.{i}.npy", part)
    assert evaluated(pock_run, toy_path, folder) == expected


@pytest.mark.parametrize("float_type", ["f2", "f4", "f8"])
@pytest.mark.parametrize("int_type", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_types_that_keep_the_meaning_are_converted(
    pock_run: Command, toy_path: Path, tmp_path: Path, float_type: str, int_type: str
) -> None:
    x = X.astype(float_type)
    np.savez(tmp_path / "a.npz", x=x, target=TARGET.astype(int_type))
    np.savez(tmp_path / "b.npz", x=x.astype("f4"), target=TARGET)
    want = evaluated(pock_run, toy_path, tmp_path / "b.npz")
    assert evaluated(pock_run, toy_path, tmp_path / "a.npz") == want


def test_bfloat16_is_converted(pock_run: Command, toy_path: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save = pytest.importorskip("safetensors.torch").save_file
    x = torch.from_numpy(X).bfloat16()
    save({"x": x, "target": torch.from_numpy(TARGET)}, tmp_path / "b.safetensors")
    np.savez(tmp_path / "a.npz", x=x.float().numpy(), target=TARGET)
    want = evaluated(pock_run, toy_path, tmp_path / "a.npz")
    assert evaluated(pock_run, toy_path, tmp_path / "b.safetensors") == want


def test_names_that_people_use_are_known(
    pock_run: Command, toy_path: Path, tmp_path: Path, expected: str
) -> None:
    for x, target in (("X", "y"), ("input", "label"), ("inputs", "labels")):
        np.savez(tmp_path / "n.npz", **{x: X, target: TARGET, "ids": np.arange(ROWS)})
        assert evaluated(pock_run, toy_path, tmp_path / "n.npz") == expected


def test_predictions_are_those_of_python(
    pock_run: Command, toy_path: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", X)
    out = tmp_path / "out.npy"
    pock_run.good("predict", toy_path, "--data", tmp_path / "x.npy", "-o", out)
    logits = load(toy_path).predict(X)
    np.testing.assert_array_equal(np.load(out), logits)
    lines = pock_run.good("predict", toy_path, "--data", tmp_path / "x.npy").splitlines()
    assert len(lines) == ROWS
    best = "abcde"[int(np.argmax(np.asarray(logits)[0]))]
    assert lines[0].startswith(f"0: {best} 0.")
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_data_larger_than_memory_is_mapped(
    pock_run: Command, toy_path: Path, tmp_path: Path
) -> None:
    """Two sparse files, 13 GiB together; the process takes a few MiB."""
    folder = tmp_path / "large"
    folder.mkdir()
    rows = 700_000_000
    with (folder / "x.bin").open("wb") as file:
        file.truncate(rows * C * 4)
    with (folder / "target.bin").open("wb") as file:
        file.truncate(rows * 8)
    events = pock_run.events(
        "train", toy_path, "--data", folder, "--lr", 0, "--no-save", "--eval",
        save_data(tmp_path / "e.npz", 4), "--eval-every", 1, "--early-stop", 1,
    )  # fmt: skip
    assert events[0]["rows"] == rows
    assert [e["event"] for e in events[-2:]] == ["early_stop", "done"]
    assert events[-1]["peak_bytes"] < 8 << 20


CALL = "    fix  call it x or X or input or inputs"
WRITE = "    fix  write it with numpy.savez(path, x=..., target=...), numbers only"


def refusal(pock_run: Command, toy_path: Path, path: Path, **arrays: Any) -> str:
    if arrays:
        np.savez(path, **arrays)
    return pock_run.bad("train", toy_path, "--data", path, "--no-save")


def test_what_does_not_fit_is_refused(
    pock_run: Command, toy_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "d.npz"

    def refused(**arrays: Any) -> str:
        return refusal(pock_run, toy_path, file, **arrays)

    assert refused(z=X, target=TARGET) == (
        f"[data-names] train_step needs an array 'x', {file} has none of that name\n{CALL}"
    )
    assert refused(x=X[:, :2], target=TARGET) == (
        f"[input-shape] train_step expects x f32[N,3] and got shape [14,2] in {file}\n"
        "    fix  give the shape that the model was compiled for, or compile for this one"
    )
    assert refused(x=X, target=TARGET[:, None]).startswith(
        "[input-shape] train_step expects target i64[N] and got shape [14,1]"
    )
    assert refused(x=TARGET[:, None].repeat(3, 1), target=TARGET).startswith(
        "[input-type] train_step expects x f32[N,3] and got i64"
    )
    assert refused(x=X, target=TARGET.astype("f4")).startswith(
        "[input-type] train_step expects target i64[N] and got f32"
    )
    assert refused(x=X, target=TARGET[:9]) == (
        f"[data-rows] the arrays of {file} have different numbers of rows: x has 14, target "
        "has 9\n    fix  give one row per sample in each"
    )
    assert refused(x=X[:3], target=TARGET[:3]) == (
        "[too-few-rows] the data has 3 rows, a step takes 4\n"
        "    fix  give more data, or compile for a smaller batch"
    )
    assert refused(x=np.asfortranarray(X), target=TARGET) == (
        f"[data-file] cannot read {file}: it is column-major: write numpy.ascontiguousarray of "
        f"it\n{WRITE}"
    )
    assert "its elements are no little-endian numbers" in refused(
        x=X.astype(">f4"), target=TARGET
    )
    assert "its elements are no little-endian numbers" in refused(
        x=np.array(["a"] * ROWS), target=TARGET
    )


def test_files_of_other_kinds_are_refused(
    pock_run: Command, toy_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "d.npz"
    assert refusal(pock_run, toy_path, tmp_path / "none.npz") == (
        f"[data-file] there is no file {tmp_path / 'none.npz'}\n    fix  check the path"
    )
    for content, why in (
        (b"", "it is no .npy file"),
        (b"PK\x03\x04", "it is no complete zip archive"),
        (b"hello world, this is text", "it is no .npy file"),
    ):
        file.write_bytes(content)
        assert refusal(pock_run, toy_path, file) == (
            f"[data-file] cannot read {file}: {why}\n{WRITE}"
        )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", b"0" * 1000)
    assert "compressed in a way that only zip programs know" in refusal(
        pock_run, toy_path, file
    )


@pytest.mark.parametrize("wrong", [5, -1, -99, 1 << 40])
def test_a_label_that_there_is_not_is_refused_before_the_step(
    pock_run: Command, toy_path: Path, tmp_path: Path, wrong: int
) -> None:
    target = TARGET.copy()
    target[9] = wrong
    np.savez(tmp_path / "d.npz", x=X, target=target)
    command = ("train", toy_path, "--data", tmp_path / "d.npz", "--no-save", "--no-shuffle")
    assert pock_run.bad(*command) == (
        f"[input-values] train_step got the label {wrong} in target, row 9, element 0, "
        "expected 0 to 4 (or -100, which does not count)\n"
        "    fix  correct the data, or compile the model for more"
    )


def test_an_ignored_label_counts_nothing(
    pock_run: Command, toy_path: Path, tmp_path: Path
) -> None:
    target = TARGET.copy()
    target[3] = -100
    np.savez(tmp_path / "a.npz", x=X, target=target)
    with load(toy_path) as artifact:
        figures = artifact.evaluate({"x": X, "target": target})
    assert evaluated(pock_run, toy_path, tmp_path / "a.npz").startswith(
        f"loss {figures['loss']:.4f}, accuracy {figures['accuracy']:.4f}"
    )


def test_a_nan_in_the_data_is_found_and_loses_nothing(
    pock_run: Command, toy_path: Path, tmp_path: Path
) -> None:
    x = X.copy()
    x[6, 1] = np.nan
    np.savez(tmp_path / "d.npz", x=x, target=TARGET)
    run = tmp_path / "run"
    before = {p.name: p.read_bytes() for p in toy_path.iterdir()}
    message = pock_run.bad(
        "train", toy_path, "--data", tmp_path / "d.npz", "--no-shuffle", "--lr", 0.25,
        "--checkpoint", run, "--checkpoint-every", 1,
    )  # fmt: skip
    assert message.replace("-nan", "nan") == (
        "[nonfinite-loss] the loss of step 2 is nan, with learning rate 0.25; row 6 of 'x' "
        "holds a NaN or an infinity\n"
        "    fix  lower the learning rate or clip gradients, and check the data for NaN; the "
        f"model is back at step 1, the last good one, from {run / 'checkpoint.safetensors'}"
    )
    assert {p.name: p.read_bytes() for p in toy_path.iterdir()} == before
    with load(toy_path) as artifact:
        artifact.load_state(run / "checkpoint.safetensors")
        assert artifact.step == 1
        assert np.isfinite(artifact.state_dict()["fc.weight"]).all()


def test_a_damaged_member_is_refused(pock_run: Command, toy_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    np.savez_compressed(file, x=X, target=TARGET)
    content = bytearray(file.read_bytes())
    content[content.index(b"x.npy") + 60] ^= 4
    file.write_bytes(content)
    assert refusal(pock_run, toy_path, file).startswith(f"[data-file] cannot read {file}: ")
