"""The losses and optimizers there are, with their options. No torch here.

These two tables are all there is to know about names and options: the configuration checks
against them, messages list them, and the functions in `losses` and `optimizers` get the values.
"""

from __future__ import annotations

from collections.abc import Mapping

from pockc.frontend.options import Option, number

LOSSES: Mapping[str, Mapping[str, Option]] = {
    "cross_entropy": {
        "label_smoothing": number(0.0, 0.0, 1.0),
        "ignore_index": Option(-100),
        "weight": Option(None, lambda w: all(v >= 0 for v in w), "that are not negative"),
    },
    "bce_with_logits": {"pos_weight": Option(None)},
    "mse": {},
    "l1": {},
    "huber": {"delta": Option(1.0, lambda v: v > 0, "above 0")},
    "smooth_l1": {"beta": number(1.0)},
    "model": {},
}


def _betas(first: float, second: float) -> Option:
    return Option((first, second), lambda b: all(0 <= v < 1 for v in b), "from 0 to below 1")


def _with_common(lr: float, weight_decay: float, **options: Option) -> dict[str, Option]:
    return {"lr": number(lr), "weight_decay": number(weight_decay), **options}


_EPS = number(1e-8)

OPTIMIZERS: Mapping[str, Mapping[str, Option]] = {
    "sgd": _with_common(
        1e-3,
        0.0,
        momentum=number(0.0, 0.0, 1.0),
        dampening=number(0.0, 0.0, 1.0),
        nesterov=Option(False),
    ),
    "adam": _with_common(1e-3, 0.0, betas=_betas(0.9, 0.999), eps=_EPS, amsgrad=Option(False)),
    "adamw": _with_common(
        1e-3, 0.01, betas=_betas(0.9, 0.999), eps=_EPS, amsgrad=Option(False)
    ),
    "rmsprop": _with_common(
        1e-2,
        0.0,
        alpha=number(0.99, 0.0, 1.0),
        eps=_EPS,
        momentum=number(0.0, 0.0, 1.0),
        centered=Option(False),
    ),
    "adagrad": _with_common(
        1e-2,
        0.0,
        lr_decay=number(0.0),
        initial_accumulator_value=number(0.0),
        eps=number(1e-10),
    ),
    "lion": _with_common(1e-4, 0.0, betas=_betas(0.9, 0.99)),
    "adafactor": _with_common(
        1e-2,
        0.0,
        beta2_decay=Option(-0.8, lambda v: v <= 0, "that is not positive"),
        eps=Option((None, 1e-3), lambda e: all(v is None or v >= 0 for v in e), "at least 0"),
        d=Option(1.0, lambda v: v >= 1, "at least 1"),
    ),
}


def option_names(table: Mapping[str, Mapping[str, Option]]) -> dict[str, tuple[str, ...]]:
    """Return every name's options but lr and weight_decay, which all optimizers take."""
    return {
        name: tuple(o for o in options if o not in ("lr", "weight_decay"))
        for name, options in table.items()
    }
