"""`pockengine` on models that have no published scheme: the nearest one, carried over."""

from __future__ import annotations

import pytest

from pockc.errors import UserError
from pockc.scheme import Scheme, load_config, resolve
from tests.scheme.models import Builder, Model, bert, llama, mlp, mobilenet, resnet


def pockengine(model: Model) -> Scheme:
    config = load_config("preset:pockengine")
    return resolve(config, model.parameters, model.values, model.modules)


def names(model: Model) -> set[str]:
    return set(pockengine(model).names)


def because(model: Model) -> set[str]:
    return {t.because for t in pockengine(model).trained.values()}


def test_of_four_encoder_blocks_half_have_biases_and_a_third_weights() -> None:
    # As DistilBERT, the nearest one: 3 and 2 of 6.
    assert because(bert(4)) == {"preset pockengine: distilbert, carried over to 4 blocks"}
    found = names(bert(4))
    at = "encoder.layer.3"
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
    above = {n for n in found if n.startswith("encoder.layer.2")}
    assert above == {n for n in bert(4).parameters if n.startswith("encoder.layer.2")
                     and n.endswith("bias")}  # fmt: skip
    assert not [n for n in found if n.startswith(("encoder.layer.1", "encoder.layer.0"))]


@pytest.mark.parametrize(
    ("blocks", "kin", "biases", "weights"),
    [(12, "bert", 6, 4), (24, "bert", 12, 8), (6, "distilbert", 3, 2), (2, "distilbert", 1, 1)],
)
def test_the_share_of_an_encoder_does_not_depend_on_its_depth(
    blocks: int, kin: str, biases: int, weights: int
) -> None:
    model = bert(blocks)
    found = names(model)
    biased = {n.split(".")[2] for n in found if n.startswith("encoder") and "bias" in n}
    trained = {n.split(".")[2] for n in found if n.endswith("query.weight")}
    assert (len(biased), len(trained)) == (biases, weights)
    assert next(iter(because(model))).startswith(f"preset pockengine: {kin}")


@pytest.mark.parametrize(("blocks", "trained"), [(32, 5), (30, 5), (16, 3), (7, 1)])
def test_of_a_decoder_five_blocks_of_32_are_trained(blocks: int, trained: int) -> None:
    found = names(llama(blocks))
    expected = {
        f"layers.{i}.{part}.weight"
        for i in range(blocks - trained, blocks)
        for part in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate")
    }
    assert found == expected | {"lm_head.weight"}


def test_of_inverted_residuals_7_of_17_are_trained() -> None:
    found = names(mobilenet(9))
    at = "features.6"
    assert {n for n in found if n.startswith(f"{at}.")} == {
        f"{at}.conv.0.0.weight", f"{at}.conv.0.1.bias", f"{at}.conv.1.1.bias",
        f"{at}.conv.3.bias",
    }  # fmt: skip
    assert not [n for n in found if n.startswith(("features.5.", "features.10"))]
    assert len(found) == 4 * 4 + 2
    assert because(mobilenet(9)) == {"preset pockengine: mobilenetv2, carried over to 9 blocks"}


def test_of_a_resnet_half_of_the_blocks_are_trained() -> None:
    weights = {n for n in names(resnet()) if n.endswith("weight") and n != "fc.weight"}
    blocks = [(3, 0), (3, 1), (3, 2), (4, 0), (4, 1), (4, 2)]
    assert weights == {f"layer{s}.{i}.conv1.weight" for s, i in blocks}


def test_a_block_that_begins_with_a_full_filter_trains_that_one() -> None:
    b = Builder()
    for i in range(2):
        b.container(f"layer.{i}", "BasicBlock")
        b.conv(f"layer.{i}.conv1", 8, 8, 3)
        b.conv(f"layer.{i}.conv2", 8, 8, 3)
        b.conv(f"layer.{i}.down", 8, 8, 1)
    assert names(b.model()) == {"layer.1.conv1.weight"}
    assert because(b.model()) == {"preset pockengine: resnet50, carried over to 2 blocks"}


def test_convolutions_over_time_are_convolutions() -> None:
    b = Builder()
    for i in range(4):
        b.container(f"features.{i}", "Block")
        b.add(f"features.{i}.0", "Conv1d", weight=(8, 8, 5), bias=(8,))
    assert names(b.model()) == {
        f"features.{i}.0.{n}" for i in (2, 3) for n in ("weight", "bias")
    }


def test_biases_of_the_attention_alone_do_not_make_a_bert() -> None:
    b = Builder()
    for i in range(8):
        b.container(f"h.{i}", "Block")
        b.linear(f"h.{i}.attn.qkv", 8, 24)
        b.linear(f"h.{i}.mlp.up", 8, 32, bias=False)
        b.linear(f"h.{i}.mlp.down", 32, 8, bias=False)
    assert because(b.model()) == {"preset pockengine: llama, carried over to 8 blocks"}
    assert names(b.model()) == {
        "h.7.attn.qkv.weight", "h.7.attn.qkv.bias", "h.7.mlp.up.weight"
    }  # fmt: skip


def test_a_fused_projection_as_wide_as_the_feed_forward_part_is_attention() -> None:
    b = Builder()
    for i in range(2):
        b.container(f"h.{i}", "Block")
        b.linear(f"h.{i}.attn.qkv", 8, 24)
        b.linear(f"h.{i}.attn.proj", 8, 8)
        b.linear(f"h.{i}.mlp.fc1", 8, 24)
        b.linear(f"h.{i}.mlp.fc2", 24, 8)
    found = {n for n in names(b.model()) if n.endswith("weight")}
    assert found == {f"h.1.{n}.weight" for n in ("attn.qkv", "attn.proj", "mlp.fc1")}


def test_a_model_without_blocks_is_told_what_to_do() -> None:
    with pytest.raises(UserError) as caught:
        pockengine(mlp())
    assert str(caught.value) == (
        "[preset] preset 'pockengine' needs repeated blocks, and the model has none\n"
        "    fix  use head, bias or full, or write rules under `update`"
    )
