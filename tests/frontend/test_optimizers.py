"""Recipes against torch.optim, and against Lion's published program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pockc import interp
from pockc.frontend.captured import Recipe
from pockc.frontend.choices import OPTIMIZERS, option_names
from pockc.frontend.optimizers import recipe, resolve_optimizer
from pockc.ir import (
    Batch,
    DType,
    InputRole,
    OptState,
    Param,
    Scalar,
    StateUpdate,
    TensorType,
    Update,
    f32,
)
from tests.frontend.helpers import problem_text
from tests.support import close
from tests.tolerances import tolerance

# Exact in float32, which is what the runtime passes.
LR = 2.0**-6
STEPS = 10


class Lion(torch.optim.Optimizer):
    """Program 1 of Chen et al., NeurIPS 2023."""

    def __init__(self, params: list[Tensor], lr: float, **options: Any) -> None:
        super().__init__(
            params, {"lr": lr, "betas": (0.9, 0.99), "weight_decay": 0.0, **options}
        )

    @torch.no_grad()
    def step(self, _: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                update = torch.sign(beta1 * m + (1 - beta1) * p.grad)
                m.mul_(beta2).add_(p.grad, alpha=1 - beta2)
                p.sub_(group["lr"] * (update + group["weight_decay"] * p))


TORCHS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "lion": Lion,
    "adafactor": torch.optim.Adafactor,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sgd", {"weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9, "dampening": 0.3}),
    ("adam", {}),
    ("adam", {"betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("adam", {"amsgrad": True}),
    ("adamw", {}),
    ("adamw", {"weight_decay": 0.1, "amsgrad": True}),
    ("rmsprop", {}),
    ("rmsprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.1, "alpha": 0.9}),
    ("adagrad", {}),
    ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "weight_decay": 0.1}),
    ("lion", {}),
    ("lion", {"betas": (0.95, 0.98), "weight_decay": 0.1}),
    ("adafactor", {}),
    ("adafactor", {"weight_decay": 0.1, "beta2_decay": -0.5, "eps": (1e-6, 1e-2), "d": 2.0}),
]


def ours(
    made: Recipe, p: np.ndarray, gradients: list[np.ndarray], lr: float = LR
) -> np.ndarray:
    """Return a parameter after a step for every gradient."""
    state = {
        s: np.full(slot.type.shape, slot.initial, slot.type.dtype.np)
        for s, slot in made.slots.items()
    }
    for i, grad in enumerate(gradients):
        given: dict[InputRole, Any] = {
            Param("p"): p,
            Batch("grad"): grad,
            Scalar("lr"): np.float32(lr),
            Scalar("step"): np.float32(i + 1),
            **{OptState(s, "p"): v for s, v in state.items()},
        }
        out = interp.run(made.graph, {n.role: given[n.role] for n in made.graph.inputs})
        p = out[Update("p")]
        state = {s: out[StateUpdate(s, "p")] for s in state}
    return p


def torchs(
    name: str, options: Mapping[str, Any], p: np.ndarray, gradients: list[np.ndarray]
) -> np.ndarray:
    parameter = torch.nn.Parameter(torch.tensor(p))
    optimizer = TORCHS[name]([parameter], lr=LR, **options)
    for grad in gradients:
        parameter.grad = torch.tensor(grad)
        optimizer.step()
    return parameter.detach().numpy()


def problem(shape: tuple[int, ...], dtype: DType) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape).astype(dtype.np) for _ in range(STEPS + 1)]
    return arrays[0], arrays[1:]


@pytest.mark.parametrize("dtype", [DType.F64, DType.F32])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_ten_steps_are_those_of_torch(name: str, options: dict[str, Any], dtype: DType) -> None:
    allowed = tolerance(dtype, "rewrite")
    for shape in ((6,), (3, 4), (2, 3, 4)):
        p, gradients = problem(shape, dtype)
        made = recipe({"name": name, **options}, TensorType(shape, dtype))
        expected = torchs(name, options, p, gradients)
        actual = ours(made, p, gradients)
        close(actual, expected, allowed)
        with pytest.raises(AssertionError):
            close(ours(made, p, gradients, lr=LR * 1.01), expected, allowed)


def test_every_optimizer_is_compared_with_another_one() -> None:
    assert {name for name, _ in CASES} == set(OPTIMIZERS) == set(TORCHS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_those_of_torch(name: str) -> None:
    group = TORCHS[name]([torch.nn.Parameter(torch.zeros(1))], lr=1e-3).param_groups[0]
    for option, value in resolve_optimizer(name)[1].items():
        if option != "lr" and (name, option) != ("adagrad", "initial_accumulator_value"):
            assert group[option] == value, option


def test_weight_decay_of_a_rule_wins() -> None:
    p, gradients = problem((3, 4), DType.F64)
    spec = {"name": "adamw", "weight_decay": 0.5}
    made = recipe(spec, TensorType((3, 4), DType.F64), weight_decay=0.1)
    expected = torchs("adamw", {"weight_decay": 0.1}, p, gradients)
    close(ours(made, p, gradients), expected, tolerance(DType.F64, "rewrite"))


def test_adafactor_keeps_a_row_and_a_column() -> None:
    slots = recipe("adafactor", f32(2, 3, 4)).slots
    assert {k: v.type for k, v in slots.items()} == {
        "rows": f32(2, 3, 1),
        "columns": f32(2, 1, 4),
    }


def test_plain_sgd_keeps_nothing_and_casts_nothing() -> None:
    made = recipe("sgd", f32(5))
    assert not made.slots
    assert [n.op for n in made.graph.nodes] == ["mul", "sub"]


def test_equal_requests_give_equal_graphs() -> None:
    assert recipe("adam", f32(5)).graph == recipe({"name": "adam", "lr": 7.0}, f32(5)).graph


def test_names_of_options_leave_out_what_all_have() -> None:
    assert option_names(OPTIMIZERS)["lion"] == ("betas",)


def test_an_unknown_optimizer_lists_the_choices() -> None:
    assert problem_text(lambda: recipe("adamwx", f32(3))) == (
        "[unknown-optimizer] optimizer: 'adamwx' is given\n"
        "    fix  did you mean 'adamw'? choose from: "
        "sgd, adam, adamw, rmsprop, adagrad, lion, adafactor"
    )


def test_wrong_options_are_reported_together() -> None:
    spec = {"name": "sgd", "momentun": 0.9, "lr": -1, "nesterov": 1, "dampening": "x"}
    assert problem_text(lambda: recipe(spec, f32(3))) == (
        "[optimizer-option] optimizer 'sgd' has no option 'momentun'\n"
        "    fix  did you mean 'momentum'? choose from: "
        "lr, weight_decay, momentum, dampening, nesterov\n"
        "[optimizer-option] optimizer 'sgd': lr is -1, expected a number at least 0\n"
        "[optimizer-option] optimizer 'sgd': nesterov is 1, expected true or false\n"
        "[optimizer-option] optimizer 'sgd': dampening is 'x', "
        "expected a number from 0 to below 1"
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"name": "adam", "betas": [0.9]}, "betas is [0.9], expected 2 numbers from 0"),
        ({"name": "adam", "betas": (0.9, 1.0)}, "expected 2 numbers from 0 to below 1"),
        ({"name": "adafactor", "d": 0.5}, "d is 0.5, expected a number at least 1"),
        ({"name": "adafactor", "beta2_decay": 0.5}, "expected a number that is not positive"),
        ({"momentum": 0.5}, "optimizer: no name is given"),
    ],
)
def test_a_wrong_value_says_what_is_expected(spec: dict[str, Any], expected: str) -> None:
    assert expected in problem_text(lambda: recipe(spec, f32(3)))
