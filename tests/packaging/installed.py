"""Run by .ci/run in a fresh environment that holds the built wheel and numpy only.

The working folder is a user's project with a package named `backends` of its own.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path


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
    sys.stdout.write("the installed package is complete\n")


if __name__ == "__main__":
    main()
