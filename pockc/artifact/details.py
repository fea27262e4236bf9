"""What `show` and `report` draw: texts that no step needs, in one compressed file.

`memory.json` tells the plan; `stages/04_PruneBackward.pock` and so on are the training step's
graph after each pass. They are much alike: together they take a few percent of their size.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

from pockc.errors import Problem, UserError
from pockc.runtime.manifest import DETAILS_FILE

MEMORY = "memory.json"
STAGES = "stages/"
_SUFFIX = ".pock"


def stage_name(stage: str) -> str:
    """Return the name under which the text of a stage is kept."""
    return f"{STAGES}{stage}{_SUFFIX}"


def packed_details(texts: Mapping[str, str]) -> bytes:
    """Return the file of these texts by name; equal texts give equal bytes.

    The window of preset 9 holds several stages, which is what makes them small.
    """
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:xz", preset=9) as archive:
        for name, text in texts.items():
            content = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def read_details(folder: Path) -> dict[str, str]:
    """Return an artifact's texts by name.

    Raises:
        UserError: [no-details] The artifact has none; [damaged-details] they cannot be read.
    """
    path = folder / DETAILS_FILE
    if not path.exists():
        what = f"{folder} does not hold its plan and the graphs of its passes ({DETAILS_FILE})"
        raise UserError(Problem("no-details", what, fix="compile the model again"))
    found = {}
    try:
        with tarfile.open(path, mode="r:xz") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    found[member.name] = content.read().decode()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, UnicodeDecodeError) as error:
        what = f"{path} cannot be read: {error}"
        fix = "copy the artifact again, or compile the model again"
        raise UserError(Problem("damaged-details", what, fix=fix)) from error
    return found


def stages_of(details: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of the stages by name, in the order of the passes."""
    return {
        name.removeprefix(STAGES).removesuffix(_SUFFIX): text
        for name, text in details.items()
        if name.startswith(STAGES)
    }
