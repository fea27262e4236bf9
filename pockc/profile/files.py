"""JSON files of a known kind and version, read with errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pockc.errors import Problem, UserError

Kept = TypeVar("Kept", bound="Strict")


class Strict(BaseModel):
    """Values that are fixed, and of exactly the fields that are declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def read_json(path: Path, kind: type[Kept], name: str, version: int, fix: str) -> Kept:
    """Return what a file holds.

    Args:
        path: The file.
        kind: What it must hold.
        name: The value of its field `format`.
        version: The value of its field `version`.
        fix: How to get a good one.

    Raises:
        UserError: [profile-file] It is missing, damaged, something else or of another version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            Problem("profile-file", f"{path} cannot be read: {error}", fix=fix)
        ) from error
    try:
        data: Any = json.loads(text)
    except ValueError as error:
        what = f"{path} is damaged: {error}"
        raise UserError(Problem("profile-file", what, fix=fix)) from error
    if not isinstance(data, dict) or data.get("format") != name:
        what = f"{path} is no {name}"
        raise UserError(Problem("profile-file", what, fix=fix))
    if data.get("version") != version:
        what = f"{path} has version {data.get('version')}, this pockc reads version {version}"
        raise UserError(Problem("profile-file", what, fix=fix))
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        what = f"{path} is damaged: {where}: {first['msg']}"
        raise UserError(Problem("profile-file", what, fix=fix)) from error
