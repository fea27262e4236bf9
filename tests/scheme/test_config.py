"""Configuration files: what they may say, and what is said about their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pockc.errors import UserError
from pockc.scheme import Channels, Rule, load_config

OPTIMIZERS = {"adamw": ("betas", "eps"), "sgd": ("momentum", "nesterov")}
LOSSES = {"cross_entropy": ("label_smoothing",), "mse": ()}

EXAMPLE = """\
optimizer: {name: adamw, lr: 3.0e-4, weight_decay: 0.01}
loss: cross_entropy
preset: last:2                 # optional start; rules refine it
update:
  - {match: "layers.[45].*", train: bias}
  - {match: "layers.5.fc1", train: weight, channels: {fraction: 0.5, axis: in, by: magnitude}}
  - {match: "classifier.*", train: all, lr_scale: 10}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(folder: Path, text: str, **overrides: Any) -> str:
    path = write(folder, text)
    with pytest.raises(UserError) as caught:
        load_config(path, overrides, optimizers=OPTIMIZERS, losses=LOSSES)
    return str(caught.value).replace(str(path), "config.yaml")


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, EXAMPLE), optimizers=OPTIMIZERS, losses=LOSSES)
    assert config.optimizer.spec == {"name": "adamw", "lr": 3e-4, "weight_decay": 0.01}
    assert config.loss is not None
    assert config.loss.spec == {"name": "cross_entropy"}
    assert config.preset == "last:2"
    assert config.update is not None
    assert config.update[1].channels == Channels(fraction=0.5, axis="in", by="magnitude")
    assert config.update[2] == Rule(match="classifier.*", train="all", lr_scale=10)
    assert (config.accumulate, config.batch_norm, config.clip_norm) == (1, "frozen", None)
    assert config.place("update", 1) == f"{tmp_path / 'config.yaml'}:6: update[1]"


def test_an_empty_file_and_no_file_say_nothing(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "# nothing\n")).optimizer == load_config().optimizer
    assert load_config().update is None


def test_numbers_and_words_of_yaml_are_read_as_people_mean_them(tmp_path: Path) -> None:
    text = "optimizer: {name: sgd, lr: 3e-4}\nupdate: [{match: no, train: none}]\nclip_norm: 1"
    config = load_config(write(tmp_path, text))
    assert config.optimizer.lr == 3e-4
    assert config.update == (Rule(match="no", train="none"),)
    assert config.clip_norm == 1.0


def test_an_optimizer_keeps_options_of_its_own() -> None:
    config = load_config({"optimizer": {"name": "sgd", "momentum": 0.9}}, optimizers=OPTIMIZERS)
    assert config.optimizer.options == {"momentum": 0.9}
    assert config.optimizer.spec == {"name": "sgd", "momentum": 0.9}


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, EXAMPLE)
    config = load_config(path, {"optimizer": {"lr": 0.5}, "preset": "head", "loss": None})
    assert config.optimizer.spec == {"name": "adamw", "lr": 0.5, "weight_decay": 0.01}
    assert config.preset == "head"
    assert config.loss is not None
    other = load_config(path, {"optimizer": {"name": "sgd"}})
    assert other.optimizer.spec == {"name": "sgd"}
    assert load_config(path, {"optimizer": "sgd"}).optimizer.spec == {"name": "sgd"}


def test_every_mistake_is_told_with_its_line_and_the_choices(tmp_path: Path) -> None:
    text = """\
optimizer: {name: adamv, lr: 3e-4}
lose: mse
preset: lst:2
update:
  - {match: "x", trian: bias}
  - {match: y, train: biases,
     channels: {fraction: 1.5, axs: in}}
  - {match: y, train: all, channels: {fraction: 0.5, count: 3}, lr_scale: fast}
  - {match: y, train: all, channels: {}}
clip_norm: true
accumulate: 0
batch_norm: frosen
"""
    assert (
        mistakes(tmp_path, text)
        == """\
[config-value] there is no preset 'lst:2'; did you mean last:N?
    at   config.yaml:3: preset
    fix  choose from: full, head, bias, last:N, pockengine
[config-missing] 'train' is missing
    at   config.yaml:5: update[0].train
    fix  train: none, bias, weight or all
[config-key] unknown key 'trian'; did you mean train?
    at   config.yaml:5: update[0].trian
    fix  choose from: match, train, channels, lr_scale, weight_decay
[config-value] 'train' is 'biases'; did you mean bias?
    at   config.yaml:6: update[1].train
    fix  choose from: none, bias, weight, all
[config-value] 'fraction' is 1.5, but it should be less than or equal to 1
    at   config.yaml:7: update[1].channels.fraction
[config-key] unknown key 'axs'; did you mean axis?
    at   config.yaml:7: update[1].channels.axs
    fix  choose from: fraction, count, heads, axis, by, seed
[config-value] give one of fraction, count, heads; found fraction and count
    at   config.yaml:8: update[2].channels
[config-value] 'lr_scale' is 'fast', but it should be a valid number
    at   config.yaml:8: update[2].lr_scale
[config-value] give one of fraction, count, heads; found none of them
    at   config.yaml:9: update[3].channels
[config-value] expected a number, found true
    at   config.yaml:10: clip_norm
[config-value] 'accumulate' is 0, but it should be greater than or equal to 1
    at   config.yaml:11: accumulate
[config-value] 'batch_norm' is 'frosen'; did you mean frozen?
    at   config.yaml:12: batch_norm
    fix  choose from: frozen, update
[config-key] unknown key 'lose'; did you mean loss?
    at   config.yaml:2: lose
    fix  choose from: optimizer, loss, preset, update, clip_norm, accumulate, batch_norm, recompute"""  # noqa: E501
    )


def test_unknown_optimizers_losses_and_options_name_what_there_is(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "optimizer: adamv\nloss: {name: ms}") == (
        "[config-value] there is no optimizer 'adamv'; did you mean adamw?\n"
        "    at   config.yaml:1: optimizer.name\n"
        "    fix  choose from: adamw, sgd\n"
        "[config-value] there is no loss 'ms'; did you mean mse?\n"
        "    at   config.yaml:2: loss.name\n"
        "    fix  choose from: cross_entropy, mse"
    )
    assert mistakes(tmp_path, "optimizer:\n  name: sgd\n  moment: 0.9") == (
        "[config-key] optimizer 'sgd' has no option 'moment'; did you mean momentum?\n"
        "    at   config.yaml:3: optimizer.moment\n"
        "    fix  choose from: lr, weight_decay, momentum, nesterov"
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("update: [", "[config-yaml] this is not YAML: "),
        ("- a\n- b", "[config-yaml] expected keys with values, found list"),
        ("loss: mse\nloss: mse", "[config-yaml] key 'loss' stands twice, first in line 1"),
        ("update: 3", "[config-value] 'update' is 3, but it should be a list"),
        ("update: [3]", "[config-value] 'update[0]' is 3, but"),
        ("preset: [1]", "[config-value] 'preset' is [1], but it should be a valid string"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, what: str) -> None:
    assert mistakes(tmp_path, text).startswith(what)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError) as caught:
        load_config("missing.yaml")
    assert str(caught.value) == (
        "[config-file] cannot read the configuration: No such file or directory\n"
        "    at   missing.yaml\n"
        "    fix  give the path of a YAML file"
    )


def test_the_choices_of_the_frontend_have_names_that_can_be_configured() -> None:
    from pockc.frontend.choices import LOSSES as LOSS_OPTIONS
    from pockc.frontend.choices import OPTIMIZERS as OPTIONS

    for name, options in OPTIONS.items():
        given = {
            k: o.default for k, o in options.items() if isinstance(o.default, float | bool)
        }
        config = load_config(
            {"optimizer": {"name": name, **given}},
            optimizers={n: tuple(o) for n, o in OPTIONS.items()},
        )
        assert config.optimizer.spec == {"name": name, **given}
    assert "cross_entropy" in LOSS_OPTIONS
