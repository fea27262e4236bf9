"""Reads YAML and remembers the line of everything in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from pockc.errors import Problem, UserError
from pockc.scheme.messages import Origin, Path


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where 1.1 surprises: 3e-4 is a number; on, off, yes and no are words."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|false|False"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.inf|\.nan"),
    list("-+.0123456789"),
)


def read_yaml(text: str, name: str) -> tuple[dict[str, Any], Origin]:
    """Return what a YAML text says and where it says it; an empty text says nothing.

    Raises:
        UserError: [config-yaml] It is no YAML, no mapping, or has a key twice.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        data = None if root is None else loader.construct_document(root)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = name if mark is None else f"{name}:{mark.line + 1}"
        what = f"this is not YAML: {getattr(e, 'problem', None) or e}"
        raise UserError(Problem("config-yaml", what, at=where, fix=_YAML_FIX)) from None
    finally:
        loader.dispose()
    if data is None:
        return {}, Origin(name)
    if not isinstance(data, dict):
        what = f"expected keys with values, found {type(data).__name__}"
        raise UserError(Problem("config-yaml", what, at=f"{name}:1", fix=_YAML_FIX))
    lines: dict[Path, int] = {}
    problems = list(_walk(root, (), lines, name))
    if problems:
        raise UserError(*problems)
    return data, Origin(name, lines)


_YAML_FIX = "write it as `key: value` lines; see the README's example"


def _walk(node: Any, path: Path, lines: dict[Path, int], name: str) -> Iterator[Problem]:  # noqa: ANN401  yaml has no types
    """Note the line of each part; report keys that stand twice."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            line = key.start_mark.line + 1
            if inner in lines:
                what = f"key '{key.value}' stands twice, first in line {lines[inner]}"
                yield Problem("config-yaml", what, at=f"{name}:{line}", fix="keep one of them")
            lines[inner] = line
            yield from _walk(value, inner, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _walk(value, (*path, number), lines, name)
