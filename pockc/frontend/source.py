"""Which line of the user's a traced operation comes from.

torch.export leaves the Python stack, outermost frame first, and the stack of modules on every
node. The user's line is the innermost one outside of torch's own files.
"""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import torch

from pockc.ir import Source

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\s*$')
_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parent)


def of_export_node(meta: Mapping[str, object]) -> Source | None:
    """Return the source of a node of an exported graph, None if it has none."""
    stack = meta.get("stack_trace")
    frames = _frames(stack) if isinstance(stack, str) else []
    if not frames:
        return None
    users = next((f for f in reversed(frames) if not _internal(f[0])), None)
    file, line, function, text = users or frames[0]
    path, owner = _module(meta.get("nn_module_stack"), outermost=users is None)
    name = f"{owner}.{function}" if owner and function == "forward" else function
    return Source(_short(file), line, name, text, path)


def of_running_code() -> Source | None:
    """Return the user's line that is running below our own frames, None if there is none."""
    frame: FrameType | None = sys._getframe(1)
    below = False
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OURS):
            if below:
                return None
        elif not _internal(file):
            text = linecache.getline(file, frame.f_lineno).strip()
            return Source(_short(file), frame.f_lineno, frame.f_code.co_name, text)
        else:
            below = True
        frame = frame.f_back
    return None


def of_traceback(error: BaseException) -> Source | None:
    """Return the innermost line of the user's that an exception went through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not _internal(frame.filename):
            text = (frame.line or "").strip()
            return Source(_short(frame.filename), frame.lineno or 0, frame.name, text)
    return None


def reason(error: BaseException) -> str:
    """Return an exception's type and the first line of what it says."""
    first = next((t.strip() for t in str(error).splitlines() if t.strip()), "")
    name = type(error).__name__
    return f"{name}: {first}" if first else name


def _frames(stack: str) -> list[tuple[str, int, str, str]]:
    frames = []
    lines = stack.splitlines()
    for at, text in enumerate(lines):
        if found := _FRAME.match(text):
            code = lines[at + 1].strip() if at + 1 < len(lines) else ""
            code = "" if _FRAME.match(code) else code.split("  # ")[0].rstrip()
            frames.append((found["file"], int(found["line"]), found["function"], code))
    return frames


def _internal(file: str) -> bool:
    return file.startswith((_TORCH, _OURS, "<"))


def _short(file: str) -> str:
    """Return a path that says enough and does not depend on the machine.

    Files of installed packages are named from the package on, others relative to the current
    folder, or by their last part if they lie elsewhere.
    """
    path = Path(file)
    for marker in ("site-packages", "dist-packages"):
        if marker in path.parts:
            return str(Path(*path.parts[path.parts.index(marker) + 1 :]))
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return path.name


def _module(stack: object, *, outermost: bool) -> tuple[str, str]:
    """Return the innermost module's qualified name and the class whose line is shown.

    That is the innermost class of the user's, or the outermost one if all are torch's.
    """
    if not isinstance(stack, Mapping) or not stack:
        return "", ""
    entries = [(str(path), _class_name(kind)) for path, kind in stack.values()]
    users = [kind for _, kind in entries if not kind.startswith("torch.")]
    shown = entries[0][1] if outermost else (users or [entries[-1][1]])[-1]
    owner = shown.rsplit(".", 1)[-1]
    return _plain(entries[-1][0]), owner


def _class_name(kind: object) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)


def _plain(path: str) -> str:
    """Strip what torch.export puts before a qualified name."""
    return re.sub(r"^L\['self'\]\.?|^L__self___?", "", path)
