"""Published schemes on nets of their families: what they train, and when they do not match.

The nets are those of timm and transformers, as deep as they are published and narrow.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pockc import driver
from pockc.errors import UserError
from pockc.frontend.captured import Captured
from pockc.frontend.loading import UserModel
from pockc.scheme import Scheme, load_config, resolve
from pockc.scheme.published import Convolutions, published
from tests import zoo

pytestmark = pytest.mark.needs_torch

IMAGE = torch.zeros(1, 3, 32, 32)
IDS = torch.zeros(1, 4, dtype=torch.int64)


def efficientnet(blocks: list[list[str]], stem: int) -> nn.Module:
    """Return a net of inverted residuals, built by timm from its own descriptions."""
    zoo.stand_in_for_torchvision()
    builder = importlib.import_module("timm.models._efficientnet_builder")
    net = importlib.import_module("timm.models.efficientnet").EfficientNet
    return net(builder.decode_arch_def(blocks), num_classes=3, stem_size=stem, num_features=0)


def mcunet() -> nn.Module:
    """MCUNet's depth: a depthwise separable block and 13 inverted residuals."""
    stages = [["ds_r1_k3_s1_c8"], *([f"ir_r{n}_k{k}_s2_e4_c{8 * i + 8}"] for i, (n, k) in
              enumerate(((3, 7), (3, 5), (3, 7), (3, 5), (1, 7))))]  # fmt: skip
    return efficientnet(stages, 16)


def proxylessnas() -> nn.Module:
    """ProxylessNAS-Mobile's depth: one separable block, then 2, 4, 4, 4, 4 and 1 others."""
    stages = [["ds_r1_k3_s1_c8"], *([f"ir_r{n}_k3_s{s}_e3_c{8 * i + 8}"] for i, (n, s) in
              enumerate(((2, 2), (4, 2), (4, 2), (4, 1), (4, 2), (1, 1))))]  # fmt: skip
    return efficientnet(stages, 16)


def timm(name: str, **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        zoo.need("timm", "see the Makefile")
        zoo.stand_in_for_torchvision()
        return importlib.import_module("timm").create_model(name, num_classes=3, **options)

    return make


def transformer(kind: str, **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        zoo.need("transformers", "pip install transformers")
        zoo.stand_in_for_torchvision()
        library = importlib.import_module("transformers")
        head = "CausalLM" if kind == "Llama" else "SequenceClassification"
        config = getattr(library, f"{kind}Config")(vocab_size=20, num_labels=3, **options)
        return getattr(library, f"{kind}For{head}")(config)

    return make


WIDTH = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
NETS: dict[str, Callable[[], nn.Module]] = {
    "mobilenetv2": timm("mobilenetv2_035"),
    "mcunet": mcunet,
    "proxylessnas": proxylessnas,
    "resnet50": timm("resnet50"),
    "bert": transformer("Bert", num_hidden_layers=12, **WIDTH),
    "distilbert": transformer("DistilBert", n_layers=6, dim=8, hidden_dim=16, n_heads=2),
    "llama": transformer("Llama", num_hidden_layers=32, use_cache=False, **WIDTH),
    "gpt": transformer("Llama", num_hidden_layers=4, use_cache=False, **WIDTH),
}
_CAPTURED: dict[str, Captured] = {}


def captured(family: str) -> Captured:
    if family not in _CAPTURED:
        torch.manual_seed(0)
        net = NETS[family]().eval()
        inputs = (
            (IMAGE,)
            if family in ("mobilenetv2", "mcunet", "proxylessnas", "resnet50")
            else (IDS,)
        )
        config = driver.read_config(None, {})
        _CAPTURED[family] = driver.capture_model(
            UserModel(net, inputs), config, driver.Options()
        )
    return _CAPTURED[family]


def scheme(name: str, family: str) -> Scheme:
    net = captured(family)
    return resolve(load_config(f"preset:{name}"), net.parameters, net.values, net.modules)


def weights(found: Scheme, family: str) -> list[str]:
    """Return the trained matrices and filters outside of the head."""
    parameters = captured(family).parameters
    head = ("classifier", "fc", "pre_classifier", "pooler", "lm_head", "bert.pooler")
    return [p for p in found.names if len(parameters[p].shape) > 1 and not p.startswith(head)]


@pytest.mark.parametrize("name", published())
def test_each_published_scheme_fits_its_family(name: str) -> None:
    family = name.partition(":")[0]
    found = scheme(name, family)
    parameters = captured(family).parameters
    biases = [p for p in found.names if parameters[p].kind == "bias"]
    chosen = published()[name].scheme
    if isinstance(chosen, Convolutions):
        assert len(weights(found, family)) == len(chosen.weights)
        # One batch norm behind each convolution, and the classifier's.
        assert len(biases) == chosen.biases + 1
    else:
        each = 1 if chosen.which == "first 1x1" else 5
        assert len(weights(found, family)) == each * chosen.weights


def named(at: str, parts: str, end: str) -> set[str]:
    return {f"{at}.{part}.{end}" for part in parts.split()}


def of_mobilenetv2() -> set[str]:
    found = {"classifier.weight", "classifier.bias"}
    for block in ("4.0", "4.1", "4.2", "5.0", "5.1", "5.2", "6.0"):
        found |= {f"blocks.{block}.conv_pw.weight"}
        found |= named(f"blocks.{block}", "bn1 bn2 bn3", "bias")
    return found


def of_resnet50() -> set[str]:
    found = {"fc.weight", "fc.bias", "layer4.0.downsample.1.bias"}
    for block in ("3.1", "3.2", "3.3", "3.4", "3.5", "4.0", "4.1", "4.2"):
        found |= {f"layer{block}.conv1.weight"}
        found |= named(f"layer{block}", "bn1 bn2 bn3", "bias")
    return found


def of_bert() -> set[str]:
    found = named("bert.pooler", "dense", "weight") | named("bert.pooler", "dense", "bias")
    found |= {"classifier.weight", "classifier.bias"}
    matrices = (
        "attention.self.query attention.self.key attention.self.value attention.output.dense "
        "intermediate.dense"
    )
    others = " attention.output.LayerNorm output.dense output.LayerNorm"
    for block in range(6, 12):
        found |= named(f"bert.encoder.layer.{block}", matrices + others, "bias")
    for block in range(8, 12):
        found |= named(f"bert.encoder.layer.{block}", matrices, "weight")
    return found


def of_distilbert() -> set[str]:
    found = {f"{m}.{e}" for m in ("pre_classifier", "classifier") for e in ("weight", "bias")}
    matrices = "attention.q_lin attention.k_lin attention.v_lin attention.out_lin ffn.lin1"
    others = " sa_layer_norm ffn.lin2 output_layer_norm"
    for block in range(3, 6):
        at = f"distilbert.transformer.layer.{block}"
        found |= named(at, matrices + others, "bias")
    for block in range(4, 6):
        found |= named(f"distilbert.transformer.layer.{block}", matrices, "weight")
    return found


def of_llama() -> set[str]:
    found = {"lm_head.weight"}
    matrices = (
        "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj"
    )
    for block in range(27, 32):
        found |= named(f"model.layers.{block}", matrices, "weight")
    return found


EXACT: dict[str, Callable[[], set[str]]] = {
    "mobilenetv2": of_mobilenetv2,
    "resnet50": of_resnet50,
    "bert": of_bert,
    "distilbert": of_distilbert,
    "llama": of_llama,
}


@pytest.mark.parametrize("family", EXACT)
def test_pockengine_is_the_scheme_of_the_family_tensor_by_tensor(family: str) -> None:
    by_name, by_kind = scheme(family, family), scheme("pockengine", family)
    assert by_name.names == EXACT[family]()
    assert by_kind == by_name
    assert {t.because for t in by_name.trained.values()} == {f"preset {family}"}
    assert {t.because for t in by_kind.trained.values()} == {f"preset pockengine: {family}"}
    assert by_kind.origin.startswith(f"preset pockengine: {family}, after Zhu et al.")
    assert by_name.origin.startswith(f"preset {family}, after Zhu et al.")
    assert by_name.origin.endswith("(from memory: not checked against its text)")


def test_the_smallest_mobilenetv2_of_the_predecessor_tensor_by_tensor() -> None:
    found = scheme("mobilenetv2:49kb", "mobilenetv2")
    parts = {p: found.trained[p].selection for p in weights(found, "mobilenetv2")}
    assert {p: s and (s[0], len(s[1])) for p, s in parts.items()} == {
        "blocks.4.2.conv_pw.weight": None,
        "blocks.5.0.conv_pw.weight": None,
        "blocks.5.0.conv_pwl.weight": (1, 48),  # of 192
        "blocks.5.1.conv_pw.weight": (1, 7),  # of 56
        "blocks.5.2.conv_pw.weight": (1, 7),
        "blocks.6.0.conv_pw.weight": (1, 7),
        "blocks.6.0.conv_dw.weight": (0, 42),  # of 336
    }
    biases = {p for p in found.names if p.startswith("blocks") and p.endswith("bias")}
    assert biases == {
        *named("blocks.4.1", "bn3", "bias"),
        *(n for b in ("4.2", "5.0", "5.1", "5.2", "6.0") for n in
          named(f"blocks.{b}", "bn1 bn2 bn3", "bias")),
    }  # fmt: skip
    assert found.origin.endswith("c29157f")


def test_rules_refine_a_published_scheme() -> None:
    net = captured("bert")
    config = load_config(
        {"preset": "bert", "update": [{"match": "classifier.weight", "train": "none"}]}
    )
    found = resolve(config, net.parameters, net.values, net.modules)
    assert "classifier.weight" not in found.trained
    assert "classifier.bias" in found.trained


@pytest.mark.parametrize(
    ("name", "family", "needs"),
    [
        ("bert", "distilbert", "12 blocks; the model has 6"),
        ("bert", "llama", "blocks of the kind 'encoder'; the model has decoder"),
        ("llama", "gpt", "32 blocks; the model has 4"),
        ("llama", "bert", "blocks of the kind 'decoder'; the model has encoder"),
        ("resnet50", "mobilenetv2", "kind 'bottleneck'; the model has inverted residual"),
        (
            "mcunet:49kb",
            "mobilenetv2",
            "42 convolutions up to the last block; the model has 51",
        ),
        ("proxylessnas:49kb", "bert", "60 convolutions up to the last block; the model has 0"),
    ],
)
def test_a_preset_of_another_family_says_what_it_needs(
    name: str, family: str, needs: str
) -> None:
    with pytest.raises(UserError, match=r"\[preset\] preset '.*' is for ") as error:
        scheme(name, family)
    assert needs in str(error.value)
    assert "use pockengine, which carries such a scheme over" in str(error.value)
    assert published()[name].source in str(error.value)


def test_an_unknown_preset_names_the_nearest_one() -> None:
    with pytest.raises(UserError, match="did you mean mcunet:49kb") as error:
        load_config("preset:mcunet:49k")
    assert "distilbert" in str(error.value)


def test_every_source_is_named_and_those_not_read_are_marked() -> None:
    for found in published().values():
        assert found.source.startswith(("Zhu et al.,", "Lin et al.,"))
        assert found.checked == found.source.startswith("Lin")
    assert {n.partition(":")[0] for n in published()} == {n for n in NETS if n != "gpt"}
