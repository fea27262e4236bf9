"""Run by .ci/run in a fresh environment that holds the built wheel and numpy only.

The working folder is a user's project with a package named `backends` of its own, and with an
artifact, `model.pock`, that was compiled elsewhere: this is Python on the device.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from pockc.runtime.manifest import InputSpec


def main() -> None:
    """Fail where the installed package does not keep its promises."""
    backends = importlib.import_module("backends")
    import pockc
    import pockc.runtime

    root = Path(pockc.__file__).parent
    if not backends.MINE or Path.cwd() in root.parents:
        raise SystemExit("the user's package and ours were mixed up")
    heavy = sorted({"torch", "tvm", "onnx", "pydantic", "typer"} & set(sys.modules))
    if heavy:
        raise SystemExit(f"importing the runtime loaded {heavy}")
    for part in ("passes", "backends", "runtime"):
        if (root / part).is_symlink() or not list((root / part).glob("*.py")):
            raise SystemExit(f"the wheel holds no real files in {part}")
    for pattern in ("include/*.h", "src/*.c"):
        if not list((root / "runtime").glob(pattern)):
            raise SystemExit(f"the wheel misses runtime/{pattern}")
    without_typer = subprocess.run(
        [str(Path(sys.executable).with_name("pockc")), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    if without_typer.returncode == 0 or "pip install" not in without_typer.stderr:
        raise SystemExit(f"the command line does not say what is missing: {without_typer}")
    train_a_step(Path("model.pock"))
    sys.stdout.write("the installed package is complete and trains\n")


def train_a_step(path: Path) -> None:
    """Train, save and go on from the checkpoint, and fail where that does not add up."""
    import numpy as np

    import pockc

    others = importlib.util.find_spec("torch") or importlib.util.find_spec("typer")
    if others:
        raise SystemExit("the environment holds more than numpy")
    rng = np.random.default_rng(0)
    with pockc.load(path, threads=1) as model:
        specs = model.train_inputs
        batch = [_random(rng, s) for s in specs]
        first = model.train_step(*batch)
        model.save_checkpoint("model.safetensors")
        second = model.train_step(*batch)
        model.load_state("model.safetensors")
        again = model.train_step(*batch)
        rows = len(model.predict(*batch[:-1]))
    if not (second < first and again == second and rows == len(batch[0])):
        raise SystemExit(f"training does not add up: {first}, {second}, {again}, {rows} rows")


def _random(rng: np.random.Generator, spec: InputSpec) -> np.ndarray:
    if spec.dtype == "f32":
        return rng.standard_normal(spec.shape, "float32")
    return rng.integers(spec.values.low, spec.values.high + 1, spec.shape)


if __name__ == "__main__":
    main()
