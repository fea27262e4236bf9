"""Rules: which tensors, which channels, and what is said about a rule that is no use."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pockc.errors import UserError
from pockc.scheme import Scheme, Trained, load_config, resolve
from tests.scheme.models import Model, bert, llama, mlp


def scheme(model: Model, *rules: dict[str, Any], **config: Any) -> Scheme:
    if rules:
        config["update"] = list(rules)
    made = load_config(config)
    return resolve(made, model.parameters, model.values, model.modules)


def text_of(model: Model, *rules: dict[str, Any], **config: Any) -> str:
    with pytest.raises(UserError) as caught:
        scheme(model, *rules, **config)
    return str(caught.value)


def test_without_rules_and_preset_everything_is_trained() -> None:
    assert list(scheme(mlp()).trained) == list(mlp().parameters)


def test_what_no_rule_matches_is_frozen() -> None:
    assert scheme(mlp(), {"match": "fc2.weight", "train": "all"}).names == {"fc2.weight"}


def test_a_module_stands_for_the_parameters_in_it() -> None:
    assert scheme(mlp(), {"match": "fc2", "train": "all"}).names == {"fc2.weight", "fc2.bias"}
    deep = scheme(bert(2), {"match": "encoder.layer.1", "train": "weight"}).names
    assert "encoder.layer.1.attention.self.query.weight" in deep
    assert not [n for n in deep if n.startswith("encoder.layer.0") or n.endswith("bias")]


def test_a_name_is_matched_as_a_whole() -> None:
    text = text_of(mlp(), {"match": "fc", "train": "all"})
    assert text.startswith("[rule-no-match] no parameter or module matches 'fc'")


def test_of_several_rules_the_last_one_decides_alone() -> None:
    found = scheme(
        mlp(),
        {"match": "*", "train": "all", "lr_scale": 3},
        {"match": "fc*", "train": "bias"},
        {"match": "fc1", "train": "none"},
    )
    assert list(found.trained) == ["fc2.bias", "head.weight", "head.bias"]
    assert found.trained["fc2.bias"].lr_scale == 1
    assert found.trained["head.bias"] == Trained(lr_scale=3)
    assert found.trained["fc2.bias"].because == "update[1] fc*: bias"


def test_rules_refine_a_preset() -> None:
    found = scheme(mlp(), {"match": "fc1", "train": "bias", "weight_decay": 0.5}, preset="head")
    assert list(found.trained) == ["fc1.bias", "head.weight", "head.bias"]
    assert found.trained["fc1.bias"].weight_decay == 0.5
    assert found.trained["head.bias"].because == "preset head"


def test_a_pattern_may_use_the_other_name_of_a_tied_parameter() -> None:
    model = llama(2)
    config = load_config({"update": [{"match": "tied.weight", "train": "all"}]})
    aliases = {"tied.weight": "embed.weight"}
    found = resolve(config, model.parameters, model.values, model.modules, aliases)
    assert found.names == {"embed.weight"}


def test_unknown_patterns_are_all_reported_with_the_nearest_names_first() -> None:
    text = text_of(
        mlp(), {"match": "fc3.weight", "train": "all"}, {"match": "haed", "train": "all"}
    )
    assert text == (
        "[rule-no-match] no parameter or module matches 'fc3.weight'\n"
        "    at   sparse_update: update[0]\n"
        "    fix  choose from: fc1.weight, fc2.weight, head.weight, fc1.bias, fc2.bias, fc1, "
        "fc2, head.bias, head\n"
        "[rule-no-match] no parameter or module matches 'haed'\n"
        "    at   sparse_update: update[1]\n"
        "    fix  choose from: head, head.bias, head.weight, fc1.bias, fc2.bias, "
        "fc1.weight, fc2.weight, fc1, fc2"
    )


def test_a_long_list_of_choices_is_cut() -> None:
    assert " more" in text_of(bert(12), {"match": "nothing", "train": "all"})


def test_a_rule_that_matches_only_the_other_kind_is_an_error() -> None:
    text = text_of(llama(2), {"match": "lm_head", "train": "bias"})
    assert text == (
        "[rule-trains-nothing] 'lm_head' matches lm_head.weight, but none of them is a bias\n"
        "    at   sparse_update: update[0]\n"
        "    fix  use train: all, or another pattern"
    )


def test_rules_that_freeze_everything_are_an_error() -> None:
    text = text_of(mlp(), {"match": "*", "train": "none"})
    assert text.startswith("[nothing-trained]")
    with pytest.raises(UserError, match="nothing-trained"):
        resolve(load_config({"update": []}), mlp().parameters, mlp().values)


def channels(model: Model, name: str, **wanted: Any) -> tuple[int, tuple[int, ...]] | None:
    found = scheme(model, {"match": name, "train": "all", "channels": wanted})
    return found.trained[name].selection


def test_channels_of_largest_norm_are_taken() -> None:
    assert channels(mlp(), "fc1.weight", count=3, axis="out") == (0, (17, 18, 19))
    assert channels(mlp(), "fc1.weight", count=3, axis="in") == (1, (9, 10, 11))
    assert channels(mlp(), "fc1.weight", count=2, axis="out", by="first") == (0, (0, 1))


def test_a_fraction_is_rounded_and_at_least_one() -> None:
    assert channels(mlp(), "head.weight", fraction=0.5) == (0, (2, 3, 4))
    assert channels(mlp(), "head.weight", fraction=0.01) == (0, (4,))
    assert channels(mlp(), "head.weight", fraction=1.0) is None


def test_random_channels_depend_on_the_seed_alone() -> None:
    one = channels(mlp(), "fc1.weight", count=5, by="random", seed=1)
    assert one == channels(mlp(), "fc1.weight", count=5, by="random", seed=1)
    assert one != channels(mlp(), "fc1.weight", count=5, by="random", seed=2)
    assert one is not None
    assert len(set(one[1])) == 5


def test_a_bias_goes_with_the_output_channels_of_its_weight() -> None:
    rule = {"match": "fc1", "train": "all", "channels": {"count": 4, "axis": "out"}}
    found = scheme(mlp(), rule).selections
    assert found == {"fc1.weight": (0, (16, 17, 18, 19)), "fc1.bias": (0, (16, 17, 18, 19))}
    rule = {"match": "fc1", "train": "all", "channels": {"count": 4, "axis": "in"}}
    assert list(scheme(mlp(), rule).selections) == ["fc1.weight"]


def test_heads_are_taken_as_a_whole() -> None:
    model = llama(2, d=8, heads=4, shared=2)
    assert channels(model, "layers.1.attn.q.weight", heads=1) == (0, (6, 7))
    assert channels(model, "layers.1.attn.k.weight", heads=1, by="first") == (0, (0, 1))
    found = channels(model, "layers.1.attn.o.weight", heads=2, axis="in", by="first")
    assert found == (1, (0, 1, 2, 3))


def test_heads_of_one_matrix_for_queries_keys_and_values() -> None:
    model = bert(2)
    param = model.parameters["encoder.layer.0.attention.self.query.weight"]
    fused = type(param)(
        "encoder.layer.0.attention.self.qkv.weight", (24, 8), "weight",
        "encoder.layer.0.attention.self", "Linear", 0,
    )  # fmt: skip
    model = Model({fused.name: fused}, model.modules)
    found = channels(model, fused.name, heads=1, by="first")
    assert found == (0, (0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19))


def test_more_channels_than_there_are_is_an_error() -> None:
    rule = {"match": "head.weight", "train": "all", "channels": {"count": 6}}
    assert text_of(mlp(), rule) == (
        "[channels] 'head.weight' has 5 output channels, and 6 should be trained\n"
        "    at   head.weight: f32[5,20]\n"
        "    fix  give at most 5"
    )


def test_heads_where_there_are_none_is_an_error() -> None:
    rule = {"match": "fc1.weight", "train": "all", "channels": {"heads": 1}}
    assert text_of(mlp(), rule) == (
        "[channels] the 20 output channels of 'fc1.weight' are not made of heads\n"
        "    at   fc1.weight: f32[20,12]; known of its modules: nothing\n"
        "    fix  give `fraction` or `count` instead of `heads`"
    )


RULES = st.lists(
    st.fixed_dictionaries(
        {
            "match": st.sampled_from(["*", "fc*", "fc1", "head.weight", "*.bias"]),
            "train": st.sampled_from(["none", "all"]),
        },
        optional={"lr_scale": st.sampled_from([1.0, 2.0])},
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, derandomize=True)
@given(rules=RULES)
def test_a_tensor_is_trained_as_its_last_rule_says(
    rules: list[dict[str, Any]],
) -> None:
    expected = {}
    for name in mlp().parameters:
        for rule in rules:
            pattern, module = rule["match"], name.rpartition(".")[0]
            if any(_glob(pattern, n) for n in (name, module)):
                expected[name] = rule
    wanted = {n: r.get("lr_scale", 1.0) for n, r in expected.items() if r["train"] == "all"}
    if not wanted:
        assert "nothing-trained" in text_of(mlp(), *rules)
        return
    found = scheme(mlp(), *rules).trained
    assert {n: t.lr_scale for n, t in found.items()} == wanted


def _glob(pattern: str, name: str) -> bool:
    """Patterns of this test: one star, at either end or alone."""
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return name == pattern
