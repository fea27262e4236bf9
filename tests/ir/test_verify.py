"""Each invariant finds what violates it, and nothing else."""

from __future__ import annotations

import pytest

from pockc.errors import InternalError
from pockc.ir.parser import parse_graph
from pockc.ir.verify import (
    STRUCTURE,
    no_dead_nodes,
    problems_of,
    update_types,
    verify,
    views_only,
)

GOOD = """\
graph g {
  %x : f32[2,3] = input batch "x"
  %w : f32[3] = input param "w"
  %a : f32[2,3] = mul(%x, %w)
  %b : f32[3,2] = permute(%a) {perm=(1, 0)}
  %s : f32[] = reduce_sum(%b) {axes=(0, 1), keepdims=false}
  %n : f32[3] = mul(%w, %w)
  output loss %s
  output update "w" %n
}
"""
ALL = (*STRUCTURE, update_types, no_dead_nodes)


def test_a_good_graph_has_no_problems() -> None:
    graph = parse_graph(GOOD)
    assert problems_of(graph, ALL) == ()
    assert verify(graph, ALL) is graph


@pytest.mark.parametrize(
    ("old", "new", "slug"),
    [
        ("%n : f32[3] = mul(%w, %w)", "%a : f32[3] = mul(%w, %w)", "unique-names"),
        ("mul(%x, %w)", "mul(%x, %n)", "ssa-order"),
        ("mul(%x, %w)", "mull(%x, %w)", "unknown-op"),
        ("%a : f32[2,3]", "%a : f32[2,4]", "type-rule"),
        ("%a : f32[2,3]", "%a : f64[2,3]", "type-rule"),
        ("{perm=(1, 0)}", "{perm=(1, 1)}", "type-rule"),
        ("{perm=(1, 0)}", "", "type-rule"),
        ("output loss %s", "output loss %t", "output-live"),
        ('output update "w" %n', "output loss %n", "unique-roles"),
        ("output loss %s\n", "", "dead-node"),
        ('update "w" %n', 'update "w" %a', "update-types"),
    ],
)
def test_a_broken_graph_is_caught(old: str, new: str, slug: str) -> None:
    assert old in GOOD
    slugs = {p.slug for p in problems_of(parse_graph(GOOD.replace(old, new, 1)), ALL)}
    assert slug in slugs


def test_a_layout_is_free_but_an_update_keeps_that_of_its_parameter() -> None:
    graph = parse_graph(GOOD.replace("%a : f32[2,3]", "%a : f32[2,3; 1,0]"))
    assert problems_of(graph, ALL) == ()


def test_a_permute_that_moves_bytes_is_no_view() -> None:
    moved = parse_graph(GOOD)
    assert [p.slug for p in problems_of(moved, (views_only,))] == ["views-only"]
    view = parse_graph(GOOD.replace("%b : f32[3,2]", "%b : f32[3,2; 1,0]"))
    assert problems_of(view, (views_only,)) == ()


def test_all_problems_are_reported_together() -> None:
    text = GOOD.replace("mul(%x, %w)", "mul(%x, %q)").replace(
        "output loss %s", "output loss %t"
    )
    with pytest.raises(InternalError) as caught:
        verify(parse_graph(text))
    assert [p.slug for p in caught.value.problems] == ["ssa-order", "output-live"]
    assert "at   %a : f32[2,3] = mul(%x, %q)" in str(caught.value)
