"""How pictures look: colours that colour-blind people tell apart, sizes, and files.

The colours are those of Okabe and Ito (Color Universal Design, 2008) and of Tol's light scheme.
A picture is drawn once, in light colours; for a page with a dark side its SVG names them as CSS
variables instead.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pockc.errors import Problem, UserError
from pockc.runtime.files import replaced_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIB = 1 << 20

INK, FAINT, GRID, PAPER = "#1b1f24", "#59636e", "#d1d9e1", "#fefefd"
FORWARD, BACKWARD, UPDATE, PRUNED = "#0072b2", "#d55e00", "#009e73", "#b8bfc6"
COLOURS: Mapping[str, str] = {
    "parameters": "#5b6f8f",
    "optimizer": "#9db2cf",
    "inputs": "#f0e442",
    "saved_activations": "#e69f00",
    "temporaries": "#56b4e9",
    "workspace": "#cc79a7",
    "forward": FORWARD,
    "backward": BACKWARD,
    "update": UPDATE,
}
"""By category of memory, and by phase of a step."""

LABELS: Mapping[str, str] = {
    "parameters": "parameters",
    "optimizer": "optimizer state",
    "inputs": "batch",
    "saved_activations": "saved activations",
    "temporaries": "short-lived values",
    "workspace": "workspace",
    "forward": "forward",
    "backward": "backward",
    "update": "update",
}

_DARK: Mapping[str, str] = {
    INK: "#e6edf3",
    FAINT: "#9ba7b4",
    GRID: "#333c47",
    PAPER: "#12161c",
    PRUNED: "#4a5461",
    COLOURS["parameters"]: "#7f93b5",
    COLOURS["optimizer"]: "#4f6386",
    FORWARD: "#4aa8e0",
    BACKWARD: "#f28a3c",
    UPDATE: "#2fc79a",
}
"""What a light colour becomes on a dark page; the others stay."""

_SETTINGS: Mapping[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": FAINT,
    "axes.edgecolor": GRID,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.hashsalt": "pockc",
}


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches; draw on it inside `styled`.

    Raises:
        UserError: [no-matplotlib] The package is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        what = "pictures need a package that is missing: matplotlib"
        fix = "pip install 'pockc[compile]', or matplotlib"
        raise UserError(Problem("no-matplotlib", what, fix=fix)) from error
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def styled() -> Any:  # noqa: ANN401  matplotlib's context manager
    """Return a context in which figures are made and drawn in this style."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        what = "pictures need a package that is missing: matplotlib"
        fix = "pip install 'pockc[compile]', or matplotlib"
        raise UserError(Problem("no-matplotlib", what, fix=fix)) from error
    return mpl.rc_context(cast("Any", _SETTINGS))


def save(made: Figure, path: Path) -> None:
    """Write a picture as PNG or SVG, as the name ends.

    Raises:
        UserError: [picture-format] The name ends in something else.
    """
    kind = check_format(path)
    content = io.BytesIO()
    with styled():
        if kind == "png":
            made.savefig(content, format="png", dpi=130)
            content = _few_colours(content)
        else:
            made.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    with replaced_file(path) as file:
        file.write(content.getvalue())


def _few_colours(png: io.BytesIO) -> io.BytesIO:
    """Return a PNG with a palette, a third of the size: pictures here have few colours."""
    from PIL import Image

    smaller = io.BytesIO()
    # Maximum coverage keeps the colours of small areas, as those of a legend.
    method = Image.Quantize.MAXCOVERAGE
    made = Image.open(png).convert("RGB").quantize(256, method=method, dither=Image.Dither.NONE)
    made.save(smaller, format="png", optimize=True)
    return smaller


def check_format(path: Path) -> str:
    """Return the format of a picture as its name says, `png` or `svg`.

    Raises:
        UserError: [picture-format] The name ends in something else.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("png", "svg"):
        what = f"a picture cannot be written as '{path.name}'"
        raise UserError(Problem("picture-format", what, fix="let its name end in .png or .svg"))
    return kind


def page_svg(made: Figure, name: str, tips: Mapping[str, str] | None = None) -> str:
    """Return a picture as an SVG element for a page that is light or dark.

    Args:
        made: The picture.
        name: Unlike those of the other pictures of the page.
        tips: What to show over an artist, by its gid.
    """
    import matplotlib as mpl

    file = io.StringIO()
    with styled(), mpl.rc_context({"svg.fonttype": "none"}):
        made.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for light in _DARK:
        text = re.sub(light, variable(light), text, flags=re.IGNORECASE)
    for gid, tip in (tips or {}).items():
        mark = f'<g id="{name}-{gid}">'
        text = text.replace(mark, f"{mark}<title>{html.escape(tip)}</title>")
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', text, count=1
    )


def page_colours(*, dark: bool) -> str:
    """Return the CSS that gives the colours of pictures their values."""
    return "".join(f"{_name(a)}:{b if dark else a};" for a, b in _DARK.items())


def variable(light: str) -> str:
    """Return a light colour as CSS that a page can make dark; it is itself elsewhere."""
    return f"var({_name(light)},{light})"


def _name(light: str) -> str:
    return f"--p{light.removeprefix('#')}"


def milliseconds(value: float) -> str:
    """Return a time with three digits, as `12.3 ms`."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def unit_of(nbytes: float) -> tuple[float, str]:
    """Return the bytes of a unit in which an amount is easy to read, and its name."""
    for size, name in ((1 << 30, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")):
        if nbytes >= size:
            return size, name
    return 1, "B"
