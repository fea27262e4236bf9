from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from pockc.errors import InternalError, UserError
from pockc.ir import Graph
from pockc.ir.verify import Invariant, no_dead_nodes
from pockc.passes import Pass, known_passes, parse_passes, run_passes
from pockc.passes.base import class_name
from pockc.passes.decompose import Decompose
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.prune_backward import PruneBackward
from tests.passes.nets import MLP
from tests.support import graph


def notes(error: BaseException) -> list[str]:
    found: list[str] = getattr(error, "__notes__", [])
    return found


DEAD = """
%x : f32[4] = input batch "x"
%a : f32[4] = exp(%x)
%b : f32[4] = neg(%x)
output prediction "0" %b
"""


@dataclass(frozen=True, slots=True)
class Break:
    """A pass that forgets a node."""

    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = ()

    def __call__(self, graph: Graph, /) -> Graph:
        return graph.replace(nodes=graph.nodes[:-1])


@dataclass(frozen=True, slots=True)
class Leave:
    """A pass that promises what it does not do."""

    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    def __call__(self, graph: Graph, /) -> Graph:
        return graph.replace(name="left")


def test_a_pass_that_breaks_the_graph_is_named_with_what_it_got() -> None:
    with pytest.raises(InternalError, match="no such value") as raised:
        run_passes(graph(DEAD), [EliminateDead(), Break()])
    where, text = notes(raised.value)
    assert where == "in pass 2 of 2: Break()"
    assert text.startswith("graph t {")
    assert "%b" in text


def test_a_long_graph_is_cut_short_in_the_note() -> None:
    lines = ['%x : f32[4] = input batch "x"']
    lines += [f"%n{i} : f32[4] = neg(%{'x' if i == 0 else f'n{i - 1}'})" for i in range(300)]
    long = graph("\n".join([*lines, 'output prediction "0" %n299']))
    with pytest.raises(InternalError) as raised:
        run_passes(long, [Break()])
    assert "POCKC_DUMP=folder keeps them all" in notes(raised.value)[1]


def test_what_a_pass_ensures_is_checked() -> None:
    with pytest.raises(InternalError, match="dead-node"):
        run_passes(graph(DEAD), [Leave()])


def test_what_a_pass_requires_is_checked() -> None:
    class Needs(Leave):
        requires: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    with pytest.raises(InternalError, match="dead-node") as raised:
        run_passes(graph(DEAD), [Needs()])
    assert "in pass 1 of 1" in notes(raised.value)[0]


def test_a_dump_holds_the_input_and_every_change(tmp_path: Path) -> None:
    again = EliminateDead()
    after = run_passes(graph(DEAD), [EliminateDead(), again], tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "00_input.pock",
        "01_EliminateDead.pock",
    ]
    assert graph((tmp_path / "01_EliminateDead.pock").read_text()) == after


def test_the_environment_names_a_folder_for_dumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKC_DUMP", str(tmp_path))
    run_passes(graph(DEAD), [EliminateDead()])
    assert (tmp_path / "t" / "01_EliminateDead.pock").exists()


def test_a_pass_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pockc.passes"):
        run_passes(graph(DEAD), [EliminateDead()])
    assert [r.getMessage().rsplit(",")[0] for r in caplog.records] == [
        "t 01 EliminateDead: 2 -> 1 nodes"
    ]


def test_every_pass_is_found_by_its_file() -> None:
    table = known_passes()
    assert {"eliminate_dead", "fuse", "update_in_place", "fold_frozen"} <= set(table)
    assert all(cls.__name__ == class_name(name) for name, cls in table.items())
    assert all(cls.__doc__ for cls in table.values())


def test_passes_are_read_from_the_shell() -> None:
    found = parse_passes(
        "prune_backward{trainable=fc.weight, fc.bias}, eliminate_dead,"
        "fold_constants{limit_bytes=8}"
    )
    assert [repr(p) for p in found[1:]] == [
        "EliminateDead()",
        "FoldConstants(limit_bytes=8, tiny_bytes=256)",
    ]
    assert found[0] == PruneBackward(frozenset({"fc.weight", "fc.bias"}))
    assert all(isinstance(p, Pass) for p in found)
    assert parse_passes("") == ()


def message(text: str) -> str:
    with pytest.raises(UserError) as raised:
        parse_passes(text)
    return str(raised.value)


def test_what_the_shell_says_wrong_is_explained() -> None:
    choices = ", ".join(known_passes())
    assert message("elimnate_dead") == (
        "[unknown-pass] there is no pass 'elimnate_dead'; did you mean eliminate_dead?\n"
        f"    fix  choose from: {choices}"
    )
    assert message("eliminate_dead{") == (
        "[pass-syntax] cannot read passes from 'eliminate_dead{' on\n"
        "    fix  write passes as name{option=value; option=a,b},name"
    )
    assert message("prune_backward{trained=a}") == (
        "[pass-option] pass 'prune_backward': there is no option 'trained' in text\n"
        "    fix  options of prune_backward: trainable"
    )
    assert message("prune_backward") == (
        "[pass-option] pass 'prune_backward': option 'trainable' is missing\n"
        "    fix  options of prune_backward: trainable"
    )
    assert message("clip_gradients{max_norm=much}") == (
        "[pass-option] pass 'clip_gradients': option 'max_norm' cannot be 'much'\n"
        "    fix  options of clip_gradients: max_norm"
    )
    assert message("prune_backward{trainable}") == (
        "[pass-option] pass 'prune_backward': option 'trainable' has no value"
    )


def test_what_a_backend_knows_is_not_decomposed() -> None:
    before = graph(MLP)
    every = frozenset(n.op for n in before.nodes)
    assert Decompose(every)(before) is before
    # Primitives have no decomposition and stay: the backend reports them.
    assert Decompose(frozenset())(before) is before
