"""Compiles and links C with zig, which brings its own headers and libraries for every target.

Neither a system compiler nor a cross toolchain is needed: the package `ziglang` is both.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pockc.errors import InternalError, Problem, UserError


def cache_folder() -> Path:
    """Return where things are kept that another compilation can use again."""
    given = os.environ.get("POCKC_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "pockc"


def run_zig(args: Sequence[str], folder: Path) -> None:
    """Run `zig` with the given arguments in a folder.

    Raises:
        UserError: [no-zig] The package `ziglang` is not installed.
        InternalError: [zig-failed] It ended with an error; its own words are in the message.
    """
    zig = _executable()
    # The global cache holds libc stubs and is worth keeping; what belongs to one call is not.
    environment = os.environ | {
        "ZIG_GLOBAL_CACHE_DIR": str(cache_folder() / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(folder / ".zig"),
        "SOURCE_DATE_EPOCH": "0",
    }
    done = subprocess.run(
        [str(zig), *args], cwd=folder, env=environment, capture_output=True, check=False
    )
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()
        raise InternalError(
            Problem(
                "zig-failed",
                f"`zig {args[0]}` ended with status {done.returncode}: {words[-2000:]}",
            )
        )


def _executable() -> Path:
    try:
        import ziglang
    except ImportError:
        raise UserError(
            Problem(
                "no-zig",
                "the linker is missing: there is no Python package 'ziglang'",
                fix='install it: pip install "pockc[compile]"',
            )
        ) from None
    return Path(str(ziglang.__file__)).parent / "zig"
