"""Presets find blocks and heads by structure."""

from __future__ import annotations

import pytest

from pockc.errors import UserError
from pockc.scheme.blocks import structure_of
from pockc.scheme.presets import preset
from tests.scheme.models import Builder, Model, bert, llama, mlp, mobilenet, resnet


def names(name: str, model: Model) -> set[str]:
    return set(preset(name, model.parameters, model.modules))


def blocks(model: Model) -> tuple[str, ...]:
    return structure_of(model.parameters, model.modules).block_names


def head(model: Model) -> tuple[str, ...]:
    return structure_of(model.parameters, model.modules).head


def test_blocks_are_the_most_frequent_class_with_two_matrices() -> None:
    assert blocks(bert(4)) == tuple(f"encoder.layer.{i}" for i in range(4))
    assert blocks(llama(7)) == tuple(f"layers.{i}" for i in range(7))
    assert blocks(mobilenet(9)) == tuple(f"features.{i}" for i in range(1, 10))
    assert blocks(resnet()) == tuple(f"layer{s}.{i}" for s in range(1, 5) for i in range(3))


def test_nested_stages_give_their_blocks_and_not_themselves() -> None:
    b = Builder()
    for stage in range(3):
        b.container(f"stages.{stage}", "Stage")
        for i in range(2):
            b.container(f"stages.{stage}.{i}", "Block")
            b.linear(f"stages.{stage}.{i}.fc1", 4, 8)
            b.linear(f"stages.{stage}.{i}.fc2", 8, 4)
    found = blocks(b.model())
    assert found == tuple(f"stages.{s}.{i}" for s in range(3) for i in range(2))


def test_numbered_layers_of_one_matrix_are_blocks_if_there_are_no_larger_ones() -> None:
    b = Builder()
    for i in (0, 2, 4):
        b.linear(f"net.{i}", 8, 8)
    assert blocks(b.model()) == ("net.0", "net.2", "net.4")
    assert blocks(mlp()) == ()


def test_blocks_stand_in_the_order_of_their_use() -> None:
    model = bert(3)
    turned = {
        n: type(p)(*(getattr(p, f) for f in ("name", "shape", "kind", "module", "module_type")),
                   -p.first_use)
        for n, p in model.parameters.items()
    }  # fmt: skip
    found = structure_of(turned, model.modules).block_names
    assert found == ("encoder.layer.2", "encoder.layer.1", "encoder.layer.0")


def test_the_head_is_what_is_fully_connected_behind_the_last_block() -> None:
    assert head(bert()) == ("pooler.dense.weight", "pooler.dense.bias",
                            "classifier.weight", "classifier.bias")  # fmt: skip
    assert head(mobilenet()) == ("classifier.1.weight", "classifier.1.bias")
    assert head(llama()) == ("lm_head.weight",)
    assert head(mlp()) == ("head.weight", "head.bias")


def test_bias_trains_all_biases_and_the_head() -> None:
    found = names("bias", mlp())
    assert found == {"fc1.bias", "fc2.bias", "head.weight", "head.bias"}


def test_last_trains_whole_blocks_and_the_head() -> None:
    found = names("last:1", bert(4))
    layer = {n for n in bert(4).parameters if n.startswith("encoder.layer.3.")}
    assert found == layer | set(head(bert(4)))
    assert len(names("last:4", bert(4))) == len(bert(4).parameters) - 1


def test_pockengine_on_a_bert() -> None:
    found = names("pockengine", bert(4))
    at = "encoder.layer.2"
    matrices = {
        n for n in found if n.startswith(at) and n.endswith("weight") and "norm" not in n
    }
    assert matrices == {
        f"{at}.attention.self.query.weight",
        f"{at}.attention.self.key.weight",
        f"{at}.attention.self.value.weight",
        f"{at}.attention.output.dense.weight",
        f"{at}.intermediate.dense.weight",
    }
    assert f"{at}.output.norm.bias" in found
    assert f"{at}.output.norm.weight" not in found
    assert not [n for n in found if n.startswith("encoder.layer.1")]


def test_pockengine_on_a_llama() -> None:
    found = names("pockengine", llama(7))
    at = "layers.6"
    assert {n for n in found if n.startswith(at)} == {
        f"{at}.attn.{n}.weight" for n in "qkvo"
    } | {f"{at}.mlp.gate.weight"}
    assert not [n for n in found if n.startswith(("layers.0", "layers.1", "norm", "embed"))]
    assert len(found) == 5 * 5 + 1


def test_pockengine_on_a_mobilenet() -> None:
    found = names("pockengine", mobilenet(9))
    at = "features.5"
    assert {n for n in found if n.startswith(at)} == {
        f"{at}.conv.0.0.weight", f"{at}.conv.0.1.bias", f"{at}.conv.1.1.bias",
        f"{at}.conv.3.bias",
    }  # fmt: skip
    assert not [n for n in found if n.startswith(("features.2.", "features.10"))]
    assert len(found) == 7 * 4 + 2


def test_pockengine_on_a_resnet() -> None:
    found = names("pockengine", resnet())
    weights = {n for n in found if n.endswith("weight") and n != "fc.weight"}
    assert weights == {
        f"layer{s}.{i}.conv1.weight" for s, i in
        [(2, 1), (2, 2), (3, 0), (3, 1), (3, 2), (4, 0), (4, 1), (4, 2)]
    }  # fmt: skip


def test_a_block_that_begins_with_a_full_filter_trains_that_one() -> None:
    b = Builder()
    for i in range(2):
        b.container(f"layer.{i}", "BasicBlock")
        b.conv(f"layer.{i}.conv1", 8, 8, 3)
        b.conv(f"layer.{i}.conv2", 8, 8, 3)
        b.conv(f"layer.{i}.down", 8, 8, 1)
    assert names("pockengine", b.model()) == {f"layer.{i}.conv1.weight" for i in range(2)}


def test_biases_of_the_attention_alone_do_not_make_a_bert() -> None:
    b = Builder()
    for i in range(8):
        b.container(f"h.{i}", "Block")
        b.linear(f"h.{i}.attn.qkv", 8, 24)
        b.linear(f"h.{i}.mlp.up", 8, 32, bias=False)
        b.linear(f"h.{i}.mlp.down", 32, 8, bias=False)
    found = names("pockengine", b.model())
    assert "h.3.attn.qkv.bias" in found
    assert not [n for n in found if n.startswith("h.2.")]


def test_a_fused_projection_as_wide_as_the_feed_forward_part_is_attention() -> None:
    b = Builder()
    for i in range(2):
        b.container(f"h.{i}", "Block")
        b.linear(f"h.{i}.attn.qkv", 8, 24)
        b.linear(f"h.{i}.attn.proj", 8, 8)
        b.linear(f"h.{i}.mlp.fc1", 8, 24)
        b.linear(f"h.{i}.mlp.fc2", 24, 8)
    found = {n for n in names("pockengine", b.model()) if n.endswith("weight")}
    assert found == {f"h.1.{n}.weight" for n in ("attn.qkv", "attn.proj", "mlp.fc1")}


@pytest.mark.parametrize(
    ("name", "model", "text"),
    [
        ("last:5", bert(4),
         "[preset] preset 'last:5' needs 5 blocks, the model has 4\n"
         "    at   blocks encoder.layer.0, encoder.layer.1, encoder.layer.2, ...\n"
         "    fix  use last:1 to last:4"),
        ("last:1", mlp(),
         "[preset] preset 'last:1' needs 1 blocks, the model has 0\n"
         "    fix  use head, bias or full"),
        ("pockengine", mlp(),
         "[preset] preset 'pockengine' needs repeated blocks, and the model has none\n"
         "    fix  use head, bias or full, or write rules under `update`"),
    ],
)  # fmt: skip
def test_a_preset_that_does_not_fit_says_what_the_model_has(
    name: str, model: Model, text: str
) -> None:
    with pytest.raises(UserError) as caught:
        names(name, model)
    assert str(caught.value) == text
