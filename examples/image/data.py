"""Write 4000 + 1000 pictures of Fashion-MNIST, enlarged to 64 x 64, to cache/{train,test}.npz.

The pictures (Xiao et al., 2017, MIT) are the Debian package `dataset-fashion-mnist`. If it is
not installed, apt fetches and unpacks it below cache/, which needs no root.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import numpy as np
from model import PIXELS

CACHE = Path(__file__).parent / "cache"
PACKAGE = "dataset-fashion-mnist"
FOLDER = "usr/share/datasets/fashion-mnist"
COUNTS = {"train": 4000, "test": 1000}
HELP = f"""Fashion-MNIST is not there. Either `apt-get install {PACKAGE}`, or put
{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte.gz into {CACHE / FOLDER}"""


def find() -> Path:
    """Return the folder with the four files; fetch them if need be.

    Raises:
        FileNotFoundError: They are not there and apt cannot bring them.
    """
    for root in (Path("/"), CACHE):
        if any((root / FOLDER).glob("train-images-idx3-ubyte*")):
            return root / FOLDER
    if shutil.which("apt-get") is None:
        raise FileNotFoundError(HELP)
    # Lists and archives of our own, so that apt needs neither root nor earlier updates.
    apt = CACHE / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "-q", f"-oDir::State::Lists={apt / 'lists'}", f"-oDir::Cache={apt}"]
    command += ["-oDebug::NoLocking=1"]
    try:
        subprocess.run([*command, "update"], check=True, cwd=apt)
        subprocess.run([*command, "download", PACKAGE], check=True, cwd=apt)
        archive = next(apt.glob(f"{PACKAGE}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(archive), str(CACHE)], check=True)
    except (subprocess.CalledProcessError, OSError, StopIteration) as error:
        raise FileNotFoundError(HELP) from error
    shutil.rmtree(apt)
    return CACHE / FOLDER


def idx(folder: Path, name: str, header: int) -> np.ndarray:
    """Return the bytes of an IDX file, compressed or not, after its header."""
    path = folder / name
    data = path.read_bytes() if path.exists() else gzip.decompress(
        (folder / f"{name}.gz").read_bytes()
    )  # fmt: skip
    return np.frombuffer(data, np.uint8, offset=header)


def enlarge(pictures: np.ndarray) -> np.ndarray:
    """Return f32 (N, 1, PIXELS, PIXELS) from 0 to 1: bilinear, half-pixel centers."""
    size = pictures.shape[-1]
    place = np.clip((np.arange(PIXELS) + 0.5) * size / PIXELS - 0.5, 0, size - 1)
    low = np.minimum(place.astype(int), size - 2)
    weight = np.zeros((PIXELS, size), np.float32)
    weight[np.arange(PIXELS), low] = 1 - (place - low)
    weight[np.arange(PIXELS), low + 1] = place - low
    return (weight @ (pictures / np.float32(255)) @ weight.T)[:, None].astype(np.float32)


def prepare() -> Path:
    """Write both files unless they are there; return their folder."""
    CACHE.mkdir(exist_ok=True)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        path = CACHE / f"{part}.npz"
        if not path.exists():
            folder, count = find(), COUNTS[part]
            pictures = idx(folder, f"{prefix}-images-idx3-ubyte", 16).reshape(-1, 28, 28)
            target = idx(folder, f"{prefix}-labels-idx1-ubyte", 8).astype(np.int64)
            np.savez(path, image=enlarge(pictures[:count]), target=target[:count])
    return CACHE


if __name__ == "__main__":
    print(prepare())
