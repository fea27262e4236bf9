"""The configuration of a fine-tuning run, from a YAML file, a mapping, or both.

Every mistake in it is a `UserError` that names the file, the line and the choices. Options of
the command line and arguments from Python are overrides: they win over the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from typing import Literal as OneOf

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from pockc.errors import Problem, UserError
from pockc.scheme.messages import FIX_MARK, Origin, problem_of, suggestion
from pockc.scheme.yaml_text import read_yaml

Choices = Mapping[str, Sequence[str]]
"""What may be chosen by name, each with the names of its options."""

PRESET_MARK = "preset:"
"""Begins a source that is no file but the name of a preset."""
PRESETS = ("full", "head", "bias", "last:N", "pockengine")
_PRESET = re.compile(r"full|head|bias|pockengine|last:[1-9]\d*")


def _number(value: object) -> object:
    """Refuse true and false, which Python would take for 1 and 0."""
    if isinstance(value, bool):
        word = str(value).lower()
        raise ValueError(f"expected a number, found {word}")  # noqa: TRY004  for pydantic
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Channels(_Strict):
    """Which channels of a weight are trained; exactly one of fraction, count and heads.

    Attributes:
        fraction: Share of the channels, rounded to the nearest number, at least one.
        count: Number of channels.
        heads: Number of attention heads.
        axis: Output or input channels.
        by: The ones of largest Euclidean norm, the first ones, or random ones.
        seed: For random ones.
    """

    fraction: Number | None = Field(None, gt=0, le=1)
    count: Count | None = None
    heads: Count | None = None
    axis: OneOf["in", "out"] = "out"
    by: OneOf["magnitude", "first", "random"] = "magnitude"
    seed: int = 0

    @model_validator(mode="after")
    def _one_amount(self) -> Channels:
        given = [k for k in ("fraction", "count", "heads") if getattr(self, k) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise ValueError(f"give one of fraction, count, heads; found {found}")
        return self


class Rule(_Strict):
    """What is trained of the tensors that a pattern matches.

    Attributes:
        match: A glob over qualified names of parameters or modules; `*` also matches dots. A
            module stands for all parameters in it.
        train: What of them is trained; the others of them are frozen.
        channels: Train only these channels of each weight.
        lr_scale: The learning rate is multiplied by it.
        weight_decay: Instead of the optimizer's.
    """

    match: str = Field(min_length=1)
    train: OneOf["none", "bias", "weight", "all"]
    channels: Channels | None = None
    lr_scale: Number = Field(1.0, ge=0)
    weight_decay: Number | None = Field(None, ge=0)


def rule_of(
    match: str,
    train: OneOf["none", "bias", "weight", "all"],
    channels: Channels | None = None,
    lr_scale: float = 1.0,
) -> Rule:
    """Return a rule made by code; what is not given is as if a file left it out."""
    return Rule(
        match=match, train=train, channels=channels, lr_scale=lr_scale, weight_decay=None
    )


class Optimizer(BaseModel):
    """An optimizer by name; what is None is the optimizer's own default.

    Its other options are kept as they are given.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "adamw"
    lr: Number | None = Field(None, ge=0)
    weight_decay: Number | None = Field(None, ge=0)

    @property
    def spec(self) -> dict[str, Any]:
        """All that was given, as one mapping."""
        return self.model_dump(exclude_none=True)

    @property
    def options(self) -> dict[str, Any]:
        """What was given besides name, lr and weight_decay."""
        return dict(self.model_extra or {})


class Loss(BaseModel):
    """A loss by name; its options are kept as they are given."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def spec(self) -> dict[str, Any]:
        """All that was given, as one mapping."""
        return self.model_dump()

    @property
    def options(self) -> dict[str, Any]:
        """What was given besides the name."""
        return dict(self.model_extra or {})


class Config(_Strict):
    """All that a configuration file can say.

    Attributes:
        optimizer: Its name and options.
        loss: Its name and options; None leaves the choice to the model's file.
        preset: A scheme by name, which the rules refine.
        update: The rules, in order. With neither preset nor rules everything is trained.
        clip_norm: Largest global norm of the gradients.
        accumulate: Into how many micro-batches a batch is split.
        batch_norm: Keep the running statistics as they are, or update them.
        recompute: Modules, by patterns, of which backward keeps the input and computes the rest
            again.
    """

    optimizer: Optimizer = Optimizer(name="adamw", lr=1e-3, weight_decay=0.01)
    loss: Loss | None = None
    preset: str | None = None
    update: tuple[Rule, ...] | None = None
    clip_norm: Number | None = Field(None, gt=0)
    accumulate: Count = 1
    batch_norm: OneOf["frozen", "update"] = "frozen"
    recompute: tuple[str, ...] = ()
    _origin: Origin = PrivateAttr(default=Origin("arguments"))

    def place(self, *path: str | int) -> str:
        """Return where a part of it was written, as `config.yaml:7: update[1]`."""
        return self._origin.place(path)

    @field_validator("optimizer", "loss", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str | None) -> str | None:
        if value is None or _PRESET.fullmatch(value):
            return value
        from pockc.scheme.published import published, short_names

        if value not in published():
            hint = suggestion(value, (*PRESETS, *published()))
            fix = f"choose from: {', '.join((*PRESETS, *short_names()))}"
            raise ValueError(f"there is no preset '{value}'{hint}{FIX_MARK}{fix}")
        return value


def load_config(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    optimizers: Choices | None = None,
    losses: Choices | None = None,
) -> Config:
    """Return the configuration of a file or mapping with overrides.

    Args:
        source: A YAML file, a mapping with the same keys, `preset:NAME`, or None for the
            defaults.
        overrides: Keys that win. An `optimizer` of the same name, or without a name, changes
            only the options it gives; one of another name replaces the file's.
        optimizers: The optimizers there are with their options, lr and weight_decay aside.
        losses: The losses there are with their options.

    Raises:
        UserError: [config-file], [config-yaml], [config-key], [config-value], [config-missing].
    """
    data, origin = _read(source)
    data = _merged(data, overrides or {})
    try:
        config = Config.model_validate(data)
        config._origin = origin
    except ValidationError as e:
        raise UserError(*(problem_of(error, origin, Config) for error in e.errors())) from None
    problems = [
        *_choice_problems("optimizer", config.optimizer, optimizers, origin),
        *_choice_problems("loss", config.loss, losses, origin),
    ]
    if problems:
        raise UserError(*problems)
    return config


def _read(source: str | Path | Mapping[str, Any] | None) -> tuple[dict[str, Any], Origin]:
    if source is None:
        return {}, Origin("arguments")
    if isinstance(source, Mapping):
        return dict(source), Origin("sparse_update")
    named = str(source)
    if named.startswith(PRESET_MARK):
        return {"preset": named.removeprefix(PRESET_MARK)}, Origin(named)
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(
            Problem(
                "config-file",
                f"cannot read the configuration: {e.strerror or e}",
                at=str(path),
                fix="give the path of a YAML file",
            )
        ) from None
    except UnicodeDecodeError:
        what = "the configuration is not UTF-8 text"
        raise UserError(Problem("config-file", what, at=str(path))) from None
    return read_yaml(text, str(path))


def _merged(data: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    given = {k: v for k, v in overrides.items() if v is not None}
    optimizer = given.pop("optimizer", None)
    if optimizer is not None:
        given["optimizer"] = _merged_optimizer(data.get("optimizer"), optimizer)
    return {**data, **given}


def _merged_optimizer(old: object, new: object) -> object:
    before = {"name": old} if isinstance(old, str) else old
    after = {"name": new} if isinstance(new, str) else new
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return after
    if after.get("name", before.get("name")) != before.get("name"):
        return after
    return {**before, **after}


def _choice_problems(
    what: str, chosen: Optimizer | Loss | None, choices: Choices | None, origin: Origin
) -> list[Problem]:
    """Check a name and its options against what there is."""
    if chosen is None or choices is None:
        return []
    if chosen.name not in choices:
        return [
            Problem(
                "config-value",
                f"there is no {what} '{chosen.name}'{suggestion(chosen.name, choices)}",
                at=origin.place((what, "name")),
                fix=f"choose from: {', '.join(choices)}",
            )
        ]
    known = choices[chosen.name]
    common = ("lr", "weight_decay") if what == "optimizer" else ()
    return [
        Problem(
            "config-key",
            f"{what} '{chosen.name}' has no option '{key}'{suggestion(key, known)}",
            at=origin.place((what, key)),
            fix=f"choose from: {', '.join((*common, *known)) or 'none'}",
        )
        for key in chosen.options
        if key not in known
    ]
