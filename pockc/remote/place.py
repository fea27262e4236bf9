"""Where on which machine: `user@host[:dir]`, as scp writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pockc.errors import Problem, UserError

_PLACE = re.compile(
    r"^(?P<user>[^@:/\s]+@)?(?P<host>\[[^\]\s]+\]|[^:/@\s]+)(?::(?P<folder>.*))?$"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A folder on another machine.

    Attributes:
        destination: What ssh connects to: `user@host`, or a name of its configuration.
        folder: The folder there; relative ones begin in the user's home.
    """

    destination: str
    folder: str

    def __str__(self) -> str:
        """Return it as scp writes it."""
        return f"{self.destination}:{self.folder}"

    def path(self, name: str) -> str:
        """Return the path of something in the folder, as the machine knows it."""
        return name if self.folder == "." else f"{self.folder.rstrip('/')}/{name}"

    def artifact(self, folder: Path) -> str:
        """Return where the copy of an artifact here is; it has the same name."""
        return self.path(folder.absolute().name)


def parse_place(text: str) -> Place:
    """Return the place that `user@host[:dir]` names; without a folder it is the home.

    Raises:
        UserError: [place] It is none.
    """
    found = _PLACE.match(text)
    # A leading dash would be an option of ssh.
    if found is None or text.startswith("-") or found["host"].startswith("-"):
        what = f"'{text}' names no place on another machine"
        raise UserError(Problem("place", what, fix="write it as user@host or user@host:dir"))
    folder = (found["folder"] or ".").removeprefix("~/")
    host = found["host"].strip("[]")
    return Place(f"{found['user'] or ''}{host}", "." if folder in ("~", "") else folder)
