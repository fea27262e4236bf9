"""Published schemes on nets of their families: what they train, and when they do not match."""

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
    "llama": transformer("Llama", num_hidden_layers=7, use_cache=False, **WIDTH),
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


def test_a_share_of_a_convolution_is_of_its_input_channels_and_a_depthwise_ones_own() -> None:
    found = scheme("mobilenetv2:49kb", "mobilenetv2")
    parameters = captured("mobilenetv2").parameters
    trained = {p: found.trained[p].selection for p in weights(found, "mobilenetv2")}
    filters = [p for p in parameters.values() if len(p.shape) == 4]
    ranked = sorted(filters, key=lambda p: p.first_use)
    assert trained[ranked[36].name] is None
    axis, channels = trained[ranked[45].name] or (None, ())
    assert axis == 1
    assert len(channels) == round(ranked[45].shape[1] / 8)
    axis, channels = trained[ranked[49].name] or (None, ())
    assert ranked[49].shape[1] == 1
    assert axis == 0
    assert len(channels) == round(ranked[49].shape[0] / 8)


def test_bert_trains_more_biases_than_weights() -> None:
    found = scheme("bert", "bert")
    at = "bert.encoder.layer"
    assert f"{at}.6.output.dense.bias" in found.trained
    assert f"{at}.5.output.dense.bias" not in found.trained
    assert {p for p in weights(found, "bert") if p.startswith(f"{at}.8")} == {
        f"{at}.8.attention.self.query.weight",
        f"{at}.8.attention.self.key.weight",
        f"{at}.8.attention.self.value.weight",
        f"{at}.8.attention.output.dense.weight",
        f"{at}.8.intermediate.dense.weight",
    }
    assert not [p for p in weights(found, "bert") if p.startswith(f"{at}.7")]


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
    assert "use pockengine or last:N" in str(error.value)
    assert published()[name].source in str(error.value)


def test_an_unknown_preset_names_the_nearest_one() -> None:
    with pytest.raises(UserError, match="did you mean mcunet:49kb") as error:
        load_config("preset:mcunet:49k")
    assert "distilbert" in str(error.value)


def test_every_source_is_named_and_those_not_read_are_marked() -> None:
    for found in published().values():
        assert found.source.startswith(("Zhu et al.,", "Lin et al.,"))
        assert found.checked == found.source.startswith("Lin")
    assert {n.partition(":")[0] for n in published()} == set(NETS)
