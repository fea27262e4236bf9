"""Reads graph text.

    graph  := "graph" NAME "{" input* node* output* "}"
    input  := VALUE ":" type "=" "input" role
    node   := VALUE ":" type "=" NAME "(" [VALUE ("," VALUE)*] ")" ["{" attr ("," attr)* "}"]
    output := "output" role VALUE
    role   := NAME STRING*
    type   := DTYPE "[" [INT ("," INT)*] [";" INT ("," INT)*] "]"
    attr   := NAME "=" value
    value  := INT | FLOAT | STRING | DTYPE | "true" | "false" | "none" | graph
            | "(" [value ("," value)* [","]] ")" | "literal" type ("[" value,* "]" | STRING)

A comment goes from # to the end of the line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from pockc.errors import Problem, UserError
from pockc.ir.attrs import Attrs, AttrValue, Literal
from pockc.ir.graph import Graph, Input, Node, Output
from pockc.ir.roles import INPUT_ROLES, OUTPUT_ROLES
from pockc.ir.types import DType, TensorType

T = TypeVar("T")

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*
    |(?P<value>%[A-Za-z0-9_.]+)
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<number>-?(?:inf\b|nan\b|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?))
    |(?P<name>[A-Za-z_][A-Za-z0-9_.]*)
    |(?P<mark>[{}()\[\]:;=,])""",
    re.VERBOSE,
)
_DTYPES = {d.value: d for d in DType}
_WORDS: dict[str, AttrValue] = {
    "true": True,
    "false": False,
    "none": None,
    "inf": math.inf,
    "nan": math.nan,
}


def parse_graph(text: str, literals: Mapping[str, Literal] | None = None) -> Graph:
    """Return the graph that a text describes.

    Args:
        text: What `print_graph` wrote, or a person.
        literals: The arrays that the text names by their hash.

    Raises:
        UserError: [graph-text] with the line at which reading stopped.
    """
    parser = _Parser(text, _tokens(text), literals or {})
    graph = parser.graph()
    parser.end()
    return graph


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            raise _error(text, at, f"cannot read {text[at]!r}")
        if found.lastgroup:
            tokens.append(_Token(found.lastgroup, found.group(), at))
        at = found.end()
    tokens.append(_Token("end", "end of text", len(text)))
    return tokens


def _error(text: str, at: int, what: str) -> UserError:
    number = text.count("\n", 0, at) + 1
    line = text.splitlines()[number - 1] if text.splitlines()[number - 1 :] else ""
    return UserError(
        Problem(
            "graph-text",
            f"line {number}: {what}",
            at=line.strip() or None,
            fix="write graph text as `pockc opt` prints it",
        )
    )


@dataclass
class _Parser:
    text: str
    tokens: list[_Token]
    literals: Mapping[str, Literal]
    position: int = field(default=0)

    def _fail(self, what: str) -> UserError:
        return _error(self.text, self.tokens[self.position].at, what)

    def _next(self, kind: str, text: str | None = None) -> str:
        token = self.tokens[self.position]
        if token.kind != kind or (text is not None and token.text != text):
            raise self._fail(f"expected {text or kind}, found {token.text}")
        self.position += 1
        return token.text

    def _at(self, text: str) -> bool:
        token = self.tokens[self.position]
        return token.text == text and token.kind in ("mark", "name")

    def _list(self, item: Callable[[], T], close: str) -> tuple[T, ...]:
        items: list[T] = []
        while not self._at(close):
            items.append(item())
            if not self._at(close):
                self._next("mark", ",")
        self._next("mark", close)
        return tuple(items)

    def end(self) -> None:
        self._next("end")

    def graph(self) -> Graph:
        self._next("name", "graph")
        name = self._next("name")
        self._next("mark", "{")
        inputs: list[Input] = []
        nodes: list[Node] = []
        outputs: list[Output] = []
        while not self._at("}"):
            if self._at("output"):
                outputs.append(self._output())
                continue
            made = self._definition()
            if isinstance(made, Input):
                inputs.append(made)
            else:
                nodes.append(made)
        self._next("mark", "}")
        return Graph(name, tuple(inputs), tuple(nodes), tuple(outputs))

    def _output(self) -> Output:
        self._next("name", "output")
        role = self._role(OUTPUT_ROLES)
        return Output(self._value_name(), role)

    def _definition(self) -> Input | Node:
        name = self._value_name()
        self._next("mark", ":")
        tensor = self._type()
        self._next("mark", "=")
        op = self._next("name")
        if op == "input":
            return Input(name, tensor, self._role(INPUT_ROLES))
        self._next("mark", "(")
        operands = self._list(self._value_name, ")")
        attrs: Attrs = Attrs()
        if self._at("{"):
            self._next("mark", "{")
            attrs = Attrs(dict(self._list(self._attr, "}")))
        return Node(name, op, operands, attrs, tensor)

    def _value_name(self) -> str:
        return self._next("value")[1:]

    def _role(self, known: Mapping[str, type[T]]) -> T:
        keyword = self._next("name")
        if keyword not in known:
            self.position -= 1
            raise self._fail(f"no role '{keyword}'; choose from: {', '.join(known)}")
        texts = []
        while self.tokens[self.position].kind == "string":
            texts.append(str(json.loads(self._next("string"))))
        try:
            return known[keyword](*texts)
        except TypeError:
            raise self._fail(f"role '{keyword}' does not take {len(texts)} names") from None

    def _int(self) -> int:
        text = self._next("number")
        try:
            return int(text)
        except ValueError:
            self.position -= 1
            raise self._fail(f"expected a whole number, found {text}") from None

    def _ints(self, *stops: str) -> tuple[int, ...]:
        items: list[int] = []
        while not any(map(self._at, stops)):
            items.append(self._int())
            if self._at(","):
                self._next("mark", ",")
        return tuple(items)

    def _type(self) -> TensorType:
        word = self._next("name")
        if word not in _DTYPES:
            self.position -= 1
            raise self._fail(f"no dtype '{word}'; choose from: {', '.join(_DTYPES)}")
        self._next("mark", "[")
        shape = self._ints(";", "]")
        layout = None
        if self._at(";"):
            self._next("mark", ";")
            layout = self._ints("]")
        self._next("mark", "]")
        try:
            return TensorType(shape, _DTYPES[word], layout)
        except ValueError as e:
            raise self._fail(str(e)) from None

    def _attr(self) -> tuple[str, AttrValue]:
        name = self._next("name")
        self._next("mark", "=")
        return name, self._value()

    def _value(self) -> AttrValue:  # noqa: PLR0911  one return per kind of value
        token = self.tokens[self.position]
        match token.kind:
            case "string":
                return str(json.loads(self._next("string")))
            case "number":
                return _number(self._next("number"))
            case "mark" if token.text == "(":
                self._next("mark", "(")
                return self._list(self._value, ")")
            case "name" if token.text == "graph":
                return self.graph()
            case "name" if token.text == "literal":
                return self._literal()
            case "name" if token.text in _WORDS:
                return _WORDS[self._next("name")]
            case "name" if token.text in _DTYPES:
                return _DTYPES[self._next("name")]
            case _:
                raise self._fail(f"expected a value, found {token.text}")

    def _literal(self) -> Literal:
        self._next("name", "literal")
        tensor = self._type()
        if self.tokens[self.position].kind == "string":
            digest = json.loads(self._next("string"))
            if digest not in self.literals:
                self.position -= 1
                raise self._fail(f"no array with hash {digest[:12]} was given with this text")
            return self.literals[digest]
        self._next("mark", "[")
        items = self._list(self._value, "]")
        if len(items) != tensor.size:
            raise self._fail(f"{len(items)} numbers for {tensor}")
        return Literal(np.array(items, tensor.dtype.np).reshape(tensor.shape))


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
