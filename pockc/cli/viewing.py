"""The commands that make something to look at: `show` and `report`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pockc.cli.console import progress_bar, say, table
from pockc.cli.console import show as show_table
from pockc.cli.options import ArtifactArg
from pockc.cli.places import check_file_target
from pockc.errors import Problem, UserError

if TYPE_CHECKING:
    from pockc.profile import Profile
    from pockc.report.graphs import Stage
    from pockc.report.subject import Subject

_VIEWERS = {
    ".json": "pip install ai-edge-model-explorer; model-explorer {path}",
    ".onnx": "pip install netron; netron {path}",
    ".svg": "a browser",
}
"""What opens a file, by its suffix."""


def show(
    artifact: ArtifactArg,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help=".json for Model Explorer, .onnx for Netron, .svg for a small picture. "
            "Default: MODEL.json.",
        ),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            metavar="NAME",
            help="captured, a pass by name or number, final, or an entry. Any number for "
            ".json. Default: all of them; for .onnx final.",
        ),
    ] = None,
    stages: Annotated[bool, typer.Option("--stages", help="List the stages.")] = False,
    title: Annotated[str | None, typer.Option(help="Of the .svg.")] = None,
) -> None:
    """Write the graph for a viewer: forward, backward and update told apart.

    Trained tensors are marked. Before pruning, what pruning takes out is grey. The .svg shows
    the net by modules: what a step computes and what was pruned.

    Examples:
        pockc show model.pock -o graph.json

        pockc show model.pock --stage PruneBackward -o pruned.onnx

        pockc show model.pock -o net.svg
    """
    from pockc.report.graphs import stage_names
    from pockc.report.subject import read_subject

    path = output or Path(f"{artifact.resolve().stem}.json")
    if path.suffix not in _VIEWERS:
        what = f"'{path.name}' is no file for a viewer"
        fix = f"let its name end in one of: {', '.join(_VIEWERS)}"
        raise UserError(Problem("show-format", what, fix=fix))
    subject = read_subject(artifact)
    if stages:
        _list_stages(subject)
        return
    check_file_target(path)
    if path.suffix == ".svg":
        _write_svg(subject, path, title or f"{subject.name}: what a training step computes")
    elif path.suffix == ".onnx":
        _write_onnx(subject, path, stage or ["final"])
    else:
        _write_json(subject, path, stage or stage_names(subject))
    say(f"wrote {path}; open it with: {_VIEWERS[path.suffix].format(path=path)}")


def _read(subject: Subject, names: Sequence[str]) -> list[Stage]:
    from pockc.report.graphs import read_stage

    found = []
    with progress_bar() as bar:
        for done, name in enumerate(names):
            bar.update("graphs", done, len(names), name)
            found.append(read_stage(subject, name))
    return found


def _list_stages(subject: Subject) -> None:
    from pockc.report.graphs import stage_names

    made = table("Stages", "stage", "nodes", "to be pruned", right=(1, 2))
    for stage in _read(subject, stage_names(subject)):
        pruned = str(len(stage.pruned)) if stage.pruned else ""
        made.add_row(stage.name, str(len(stage.graph.nodes)), pruned)
    show_table(made)


def _write_json(subject: Subject, path: Path, names: Sequence[str]) -> None:
    from pockc.report.model_explorer import collection

    data = collection(subject.name, _read(subject, names))
    _write(path, json.dumps(data, separators=(",", ":")).encode())


def _write_onnx(subject: Subject, path: Path, names: Sequence[str]) -> None:
    from pockc.report.netron import onnx_view

    if len(names) != 1:
        what = f"an ONNX file holds one stage, {len(names)} are asked for"
        raise UserError(Problem("show-format", what, fix="give one --stage, or write .json"))
    (stage,) = _read(subject, names)
    _write(path, onnx_view(stage, subject.manifest.producer).SerializeToString())


def _write_svg(subject: Subject, path: Path, title: str) -> None:
    _write(path, net_picture(subject, title).encode())


def net_picture(subject: Subject, title: str) -> str:
    """Return the SVG of an artifact's net, pruned parts grey."""
    from pockc.report.graphs import CAPTURED, read_stage
    from pockc.report.net import columns, net_svg

    return net_svg(title, columns(read_stage(subject, CAPTURED), subject.sizes()))


def _write(path: Path, content: bytes) -> None:
    from pockc.runtime.files import replaced_file

    with replaced_file(path) as file:
        file.write(content)


def report(
    artifact: ArtifactArg,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="REPORT.html", help="Default: MODEL.html beside it."
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="OTHER.pock", help="Show it beside this one."),
    ] = None,
    profile: Annotated[
        list[Path] | None,
        typer.Option(
            "--profile",
            metavar="PROFILE.json",
            help="Times: of `pockc profile --json` or `pock-run bench --profile`; for this "
            "artifact, then for the other one.",
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", metavar="DIR", help="Write the pictures there, as files."),
    ] = None,
    picture_format: Annotated[
        str, typer.Option("--format", help="Of the pictures: png or svg.")
    ] = "png",
) -> None:
    """Write one HTML file that shows a training step; it opens offline, light or dark.

    Memory over the step, the arena, what is trained and what was pruned; with a profile also
    the roofline, the time by module and a table of the kernels that is sorted by clicking.

    Examples:
        pockc report model.pock -o report.html

        model.pock/pock-run bench model.pock --profile times.json

        pockc report model.pock --profile times.json

        pockc report sparse.pock --compare full.pock --pictures pictures
    """
    from pockc.report.files import Pictures
    from pockc.report.report import Reported, report_html
    from pockc.report.subject import read_subject

    path = output or artifact.with_suffix(".html")
    check_file_target(path)
    files = None if pictures is None else Pictures(pictures, picture_format)
    paths = [artifact, *([] if compare is None else [compare])]
    shown = [
        Reported(read_subject(p), measured)
        for p, measured in zip(paths, _profiles(profile or [], paths), strict=True)
    ]
    with progress_bar() as bar:
        bar.update("report", 0, 2, "page")
        _write(path, report_html(shown).encode())
        bar.update("report", 1, 2, "pictures")
        written = [] if files is None else files.write(shown)
    for name in written:
        say(f"wrote {name}")
    say(f"wrote {path}; it opens in any browser")


def _profiles(given: Sequence[Path], artifacts: Sequence[Path]) -> list[Profile | None]:
    """Return the profile of each artifact, None where none is given.

    Raises:
        UserError: [profile-of-another] One was made of another program; [profile-file].
    """
    if len(given) > len(artifacts):
        what = f"{len(given)} profiles are given for {len(artifacts)} artifacts"
        raise UserError(Problem("profile-of-another", what, fix="give one for each"))
    found: list[Profile | None] = []
    for file, artifact in zip(given, artifacts, strict=False):
        found.append(_profile(file, artifact))
    return found + [None] * (len(artifacts) - len(found))


def _profile(file: Path, artifact: Path) -> Profile:
    """Return the profile in a file, or what a device recorded joined with the artifact."""
    from pockc.profile import joined, read_profile, read_recording
    from pockc.profile.recording import FORMAT
    from pockc.runtime.opening import read_manifest

    if is_of_format(file, FORMAT):
        return joined(read_recording(file), artifact)
    profile = read_profile(file)
    if read_manifest(artifact).step_sha256 != profile.step_sha256:
        what = f"{file} is a profile of another program than {artifact}"
        fix = f"make it again: pockc profile {artifact} --json {file}"
        raise UserError(Problem("profile-of-another", what, fix=fix))
    return profile


def is_of_format(file: Path, name: str) -> bool:
    """Return whether a file is JSON whose field `format` has a value; other files are not."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == name
