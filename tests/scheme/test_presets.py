"""Presets find blocks and heads by structure."""

from __future__ import annotations

import pytest

from pockc.errors import UserError
from pockc.scheme.blocks import structure_of
from pockc.scheme.presets import preset
from tests.scheme.models import Builder, Model, bert, llama, mlp, mobilenet, resnet


def names(name: str, model: Model) -> set[str]:
    structure = structure_of(model.parameters, model.modules)
    return set(preset(name, model.parameters, structure))


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
    ],
)  # fmt: skip
def test_a_preset_that_does_not_fit_says_what_the_model_has(
    name: str, model: Model, text: str
) -> None:
    with pytest.raises(UserError) as caught:
        names(name, model)
    assert str(caught.value) == text
