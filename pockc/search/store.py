"""Contributions on disk: one JSON file, rewritten whole after each result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pockc.errors import Problem, UserError
from pockc.runtime.files import replaced_file


@dataclass
class Store:
    """What is known of each candidate, and under which conditions it was found.

    Attributes:
        path: The file.
        settings: What the results depend on: model, data, steps. Other settings are an error.
        results: By candidate.
    """

    path: Path
    settings: Mapping[str, Any]
    results: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> Store:
        """Return what a file has; a missing one is empty.

        Raises:
            UserError: [contributions] The file is damaged, or from other settings.
        """
        if not path.exists():
            return cls(path, settings)
        fix = "give another --contributions file, or delete this one"
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
            found = dict(loaded["settings"])
            results = {
                candidate: {name: float(value) for name, value in result.items()}
                for candidate, result in loaded["results"].items()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else error
            what = f"{path} does not hold contributions: {why}"
            raise UserError(Problem("contributions", what, fix=fix)) from error
        differing = sorted(k for k in {*found, *settings} if found.get(k) != settings.get(k))
        if differing:
            parts = (f"{k} {found.get(k)} and not {settings.get(k)}" for k in differing)
            what = f"{path} was made with {', '.join(parts)}"
            raise UserError(Problem("contributions", what, fix=fix))
        return cls(path, settings, results)

    def put(self, candidate: str, result: Mapping[str, float]) -> None:
        """Keep a result; a process that is killed loses none that was put."""
        self.results[candidate] = dict(result)
        content = {"settings": dict(self.settings), "results": self.results}
        with replaced_file(self.path) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())
