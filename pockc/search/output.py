"""A configuration as YAML text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from pockc.scheme import Config

FOUND = "found by pockc search"
"""Begins the first comment of what a search writes."""


def config_text(config: Config, comments: Sequence[str] = ()) -> str:
    """Return a configuration as `pockc compile --sparse-update` reads it, one rule a line."""
    data: dict[str, Any] = config.model_dump(exclude_none=True, exclude={"update"})
    if not config.recompute:
        del data["recompute"]
    lines = [f"# {c}" for c in comments]
    lines += [f"{k}: {_flow(v)}" for k, v in data.items()]
    if config.update is not None:
        lines.append("update:")
        for rule in config.update:
            lines.append(f"  - {_flow(rule.model_dump(exclude_defaults=True))}")
    return "\n".join(lines) + "\n"


def _flow(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()
