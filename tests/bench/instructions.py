"""Instructions of a training step on Arm, counted under emulation: the same number every time.

    python -m tests.bench.instructions                  # the models of tests/device
    python -m tests.bench.instructions model.pock ...

An emulator's times say nothing of a board's. The number of instructions does not depend on the
machine that counts; for one processor it falls and rises with the time of kernels that the
arithmetic bounds. It says nothing of waiting for memory.

Needs `qemu-user` (not the static one, which loads no plugins) and, for 64-bit Arm,
`libc6-arm64-cross`. A step is the difference of two runs with one thread: what comes before the
first step is in both.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pockc.backends.native import COMMAND
from pockc.cli.console import show, table
from pockc.cli.text import count
from pockc.runtime.manifest import Manifest
from pockc.runtime.opening import read_manifest
from tests.device.emulation import compile_for
from tests.device.models import MODELS

SOURCE = Path(__file__).with_name("count_instructions.c")
EMULATORS = {"aarch64": "qemu-aarch64", "armv7l": "qemu-arm", "x86_64": "qemu-x86_64"}
LIBRARIES = {"aarch64": "/usr/aarch64-linux-gnu", "armv7l": "/usr/arm-linux-gnueabihf"}
API_VERSIONS = range(1, 9)


def compiled(folder: Path) -> list[Path]:
    """Compile the models of tests/device for boards."""
    return [compile_for(t, name, folder) for name in MODELS for t in ("rpi4", "rpi3")]


def main(artifacts: list[Path]) -> None:
    """Print a table with a row for each artifact."""
    made = table(
        "Instructions of a training step, one thread",
        *("artifact", "target", "rows", "multiply-adds", "instructions", "per multiply-add"),
        right=(2, 3, 4, 5),
    )
    with tempfile.TemporaryDirectory() as folder:
        for artifact in artifacts or compiled(Path(folder)):
            manifest = read_manifest(artifact)
            plugin = build_plugin(Path(folder), emulator(manifest))
            total = per_step(artifact, manifest, plugin)
            products = manifest.entries["train_step"].multiply_adds * manifest.micro_batches
            made.add_row(
                artifact.name,
                manifest.machine.target,
                str(manifest.batch_rows),
                count(products),
                count(total),
                f"{total / products:.3f}",
            )
    show(made)


def emulator(manifest: Manifest) -> str:
    """Return the emulator of an artifact's machine.

    Raises:
        SystemExit: It is not installed.
    """
    name = EMULATORS[manifest.machine.arch]
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"there is no {name}: apt-get install qemu-user")
    return found


def build_plugin(folder: Path, program: str) -> Path:
    """Compile the plugin for the version of the interface that an emulator has.

    Raises:
        SystemExit: It takes none of them.
    """
    out = folder / "count.so"
    compiler = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O2", str(SOURCE)]
    for version in API_VERSIONS:
        words = [*compiler, f"-DAPI_VERSION={version}", "-o", str(out)]
        subprocess.run(words, check=True)
        tried = [program, "-plugin", str(out), "/nonexistent"]
        done = subprocess.run(tried, capture_output=True, text=True, check=False)
        if "plugin" not in done.stderr:
            return out
    raise SystemExit(f"{program} loads no plugin: {done.stderr}")


def per_step(artifact: Path, manifest: Manifest, plugin: Path) -> int:
    """Return the instructions of one step."""
    once, twice = (counted(artifact, manifest, plugin, steps) for steps in (1, 2))
    return twice - once


def counted(artifact: Path, manifest: Manifest, plugin: Path, steps: int) -> int:
    """Return the instructions of a whole run of `pock-run bench`."""
    machine = manifest.machine
    words = [emulator(manifest), "-plugin", str(plugin), "-d", "plugin"]
    if machine.arch == "aarch64" and machine.cpu.startswith("cortex-"):
        words += ["-cpu", known_cpu(emulator(manifest), machine.cpu)]
    if machine.arch in LIBRARIES:
        words += ["-L", LIBRARIES[machine.arch]]
    words += [str(artifact / COMMAND), "bench", str(artifact), "--threads", "1"]
    words += ["--steps", str(steps), "--no-verify"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = re.search(r"^instructions (\d+)$", done.stderr, re.MULTILINE)
    if found is None:
        raise SystemExit(f"the emulator counted nothing: {done.stderr}")
    return int(found[1])


def known_cpu(program: str, cpu: str) -> str:
    """Return a processor's name if the emulator knows it, else one that can do everything."""
    asked = [program, "-cpu", "help"]  # ends with 1 in some versions
    listed = subprocess.run(asked, capture_output=True, text=True, check=False)
    return cpu if cpu in listed.stdout.split() else "max"


if __name__ == "__main__":
    main([Path(a) for a in sys.argv[1:]])
