"""`reorder` and `update_in_place`: what runs when, and over what it writes."""

from __future__ import annotations

import pytest

from pockc.errors import InternalError
from pockc.ir import Graph
from pockc.ir.verify import verify
from pockc.passes import run_passes
from pockc.passes.attach_optimizer import Attachment, AttachOptimizer
from pockc.passes.choose_layout import ChooseLayout
from pockc.passes.fuse import Fuse
from pockc.passes.fusion_rules import FusionRules
from pockc.passes.memory import Storages
from pockc.passes.reorder import Reorder
from pockc.passes.share_common import ShareCommon
from pockc.passes.update_in_place import UpdateInPlace, in_place_safe
from tests.passes.nets import MLP, sgd
from tests.support import Golden, graph, same_results

RECIPES = AttachOptimizer(
    (
        Attachment("fc1.weight", sgd(6, 8)),
        Attachment("fc1.bias", sgd(8)),
        Attachment("fc2.weight", sgd(8, 4)),
    )
)

RULES = FusionRules(update_in_anchor=False)


def trained() -> Graph:
    return run_passes(graph(MLP), [RECIPES, ShareCommon(), ChooseLayout(), Fuse(RULES)])


def names(of: Graph) -> list[str]:
    return [n.name for n in of.nodes]


def marks(of: Graph) -> dict[str, str]:
    return {n.name: n.inputs[n.attrs["inplace"]] for n in of.nodes if "inplace" in n.attrs}


def test_an_update_runs_when_its_gradient_is_there(golden: Golden) -> None:
    before = trained()
    after = run_passes(before, [Reorder()])
    golden.check("\n".join(names(after)) + "\n")
    same_results(before, after)
    order = names(after)
    # fc2's momentum before fc1's gradient is made.
    assert order.index("da") < order.index("new_2") < order.index("g1")
    old, new = (sum(Storages(before).live_bytes(g.nodes)) for g in (before, after))
    assert new < old


def test_only_one_gradient_is_alive_at_a_time() -> None:
    lines = ['%x : f32[8] = input batch "x"', '%lr : f32[] = input scalar "lr"']
    lines += [f'%w{i} : f32[100,8] = input param "w{i}"' for i in range(5)]
    lines += [f"%g{i} : f32[100,8] = broadcast_to(%x) {{shape=(100,8)}}" for i in range(5)]
    lines += [f"%n{i} : f32[100,8] = sub(%w{i}, %g{i})" for i in range(5)]
    lines += [f'output update "w{i}" %n{i}' for i in range(5)]
    before = graph("\n".join(lines))
    after = run_passes(before, [Reorder()])
    assert Storages(before).peak_bytes(before.nodes) == 32 + 5 * 3200
    assert Storages(before).peak_bytes(after.nodes) == 32 + 3200


def test_an_order_that_is_as_good_stays() -> None:
    chain = graph("""
        %x : f32[4] = input batch "x"
        %a : f32[4] = exp(%x)
        %b : f32[4] = neg(%a)
        output prediction "0" %b
    """)
    assert Reorder()(chain) is chain


def test_old_values_are_read_before_they_are_replaced() -> None:
    before = graph("""
        %w : f32[4] = input param "w"
        %x : f32[4] = input batch "x"
        %n : f32[4] = sub(%w, %x)
        %y : f32[4] = mul(%w, %x)
        output update "w" %n
        output prediction "0" %y
    """)
    assert names(run_passes(before, [Reorder()])) == ["y", "n"]


SWAP = """
%v : f32[4] = input param "v"
%w : f32[4] = input param "w"
%a : f32[4] = neg(%w)
%b : f32[4] = neg(%v)
output update "v" %a
output update "w" %b
"""


def test_parameters_that_trade_places_do_not_confuse_it() -> None:
    before = graph(SWAP)
    after = run_passes(before, [Reorder(), UpdateInPlace()])
    same_results(before, after)
    assert not marks(after)


def test_state_is_overwritten_by_its_own_new_value(golden: Golden) -> None:
    after = run_passes(trained(), [Reorder(), UpdateInPlace()])
    golden.check(str(after))
    same_results(trained(), after)
    found = marks(after)
    assert {found["p2"], found["p2_1"], found["p2_2"]} == {"w1", "b1", "w2"}


def test_a_value_that_is_read_later_is_not_overwritten() -> None:
    text = """
        %x : f32[4] = input batch "x"
        %w : f32[4] = input param "w"
        %e : f32[4] = exp(%x)
        %a : f32[4] = neg(%e)
        %v : f32[2,2] = reshape(%e) {shape=(2,2)}
        %b : f32[2,2] = abs(%v)
        %c : f32[4] = neg(%w)
        output prediction "0" %a
        output prediction "1" %b
        output prediction "2" %c
    """
    after = run_passes(graph(text), [UpdateInPlace()])
    # x may be overwritten, e not (a view of it is read), v by its last reader, w never.
    assert marks(after) == {"e": "x", "b": "v"}


@pytest.mark.parametrize(
    "line",
    [
        "%o : f32[4,4] = mul(%e, %e)",
        "%o : f32[4,4] = permute(%e) {perm=(1,0)}",
        "%o : f32[4] = reduce_sum(%e) {axes=(0,), keepdims=false}",
        "%o : f32[4,4] = matmul(%e, %x)",
        "%o : b1[4,4] = gt(%e, %x)",
        "%o : f32[4,4; 1,0] = relayout(%e) {layout=(1,0)}",
        "%t : f32[4,4] = reshape(%e) {shape=(4,4)}\n%o : f32[4,4] = mul(%e, %t)",
    ],
)
def test_only_elementwise_results_of_the_same_type_overwrite(line: str) -> None:
    text = f"""
        %x : f32[4,4] = input param "x"
        %e : f32[4,4] = exp(%x)
        {line}
        output prediction "0" %o
    """
    assert not marks(run_passes(graph(text), [UpdateInPlace()]))


def test_put_overwrites_what_it_changes() -> None:
    after = run_passes(
        graph("""
        %w : f32[5,2] = input param "w"
        %v : f32[2,2] = input batch "v"
        %n : f32[5,2] = put(%w, %v) {axis=0, indices=(1,3)}
        output update "w" %n
    """),
        [UpdateInPlace()],
    )
    assert marks(after) == {"n": "w"}


FUSED = """
%w : f32[4,4] = input param "w"
%x : f32[4,4] = input batch "x"
%n : f32[4,4] = fused(%x, %w) {body=graph fused {
  %i0 : f32[4,4] = input batch "0"
  %i1 : f32[4,4] = input batch "1"
  %t0 : f32[4,4] = matmul(%i0, %i0)
  %t1 : f32[4,4] = sub(%i1, %t0)
  output prediction "0" %t1
}}
output update "w" %n
"""


def test_the_epilogue_of_a_product_overwrites_where_the_backend_can() -> None:
    assert marks(run_passes(graph(FUSED), [UpdateInPlace(anchors=True)])) == {"n": "w"}
    assert not marks(run_passes(graph(FUSED), [UpdateInPlace()]))
    turned = FUSED.replace("matmul(%i0, %i0)", "matmul(%i0, %i1)")
    assert not marks(run_passes(graph(turned), [UpdateInPlace(anchors=True)]))


def test_reading_what_was_overwritten_is_found() -> None:
    broken = graph("""
        %x : f32[4] = input batch "x"
        %a : f32[4] = exp(%x)
        %b : f32[4] = neg(%a) {inplace=0}
        %c : f32[4] = add(%a, %b)
        output prediction "0" %c
    """)
    with pytest.raises(InternalError, match=r"%a was overwritten by %b before this reads it"):
        verify(broken, [in_place_safe])
