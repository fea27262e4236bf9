"""Optimizers: each one parameter's update as a pure torch function, traced to a small graph.

They compute what `torch.optim` computes, in its order. Scalars that depend on the step count,
as Adam's bias corrections, are computed in float64 as torch does: in float32, 1 - 0.999^1 would
keep four digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from pockc.frontend.captured import Recipe, Slot
from pockc.frontend.choices import OPTIMIZERS
from pockc.frontend.dtypes import torch_dtype
from pockc.frontend.importer import import_graph
from pockc.frontend.options import read
from pockc.ir import (
    Batch,
    DType,
    InputRole,
    OptState,
    OutputRole,
    Param,
    Scalar,
    StateUpdate,
    TensorType,
    Update,
)

Options = Mapping[str, Any]
State = dict[str, Tensor]
Update_ = tuple[Tensor, State]
Spec = str | Mapping[str, Any]


def resolve_optimizer(optimizer: Spec) -> tuple[str, dict[str, Any]]:
    """Return an optimizer's name and all its options, lr and weight_decay among them.

    Raises:
        UserError: [unknown-optimizer] or [optimizer-option], with the choices.
    """
    return read("optimizer", OPTIMIZERS, optimizer)


def recipe(optimizer: Spec, tensor: TensorType, *, weight_decay: float | None = None) -> Recipe:
    """Return one parameter update for one tensor type.

    Args:
        optimizer: A name, or a mapping with a name and options. Its lr is not in the graph:
            the learning rate is the input Scalar("lr").
        tensor: Shape and element type of what is trained.
        weight_decay: Instead of the optimizer's.

    Raises:
        UserError: [unknown-optimizer] or [optimizer-option], with the choices.
    """
    name, options = resolve_optimizer(optimizer)
    if weight_decay is not None:
        options = {**options, "weight_decay": weight_decay}
    function, slots_of = _OPTIMIZERS[name]
    slots = slots_of(options, tensor)
    return Recipe(_traced(name, function, options, tensor, slots), slots)


def _traced(
    name: str,
    function: Callable[..., Update_],
    options: Options,
    tensor: TensorType,
    slots: Mapping[str, Slot],
) -> Any:  # noqa: ANN401
    def step(
        p: Tensor, grad: Tensor, lr: Tensor, count: Tensor, *state: Tensor
    ) -> list[Tensor]:
        kept = dict(zip(slots, state, strict=True))
        new, after = function(p, grad, kept, lr.double(), count.double(), options)
        return [new, *(after[s] for s in slots)]

    scalar = TensorType((), DType.F32)
    given: list[tuple[InputRole, TensorType]] = [
        (Param("p"), tensor),
        (Batch("grad"), tensor),
        (Scalar("lr"), scalar),
        (Scalar("step"), scalar),
    ]
    given += [(OptState(s, "p"), slot.type) for s, slot in slots.items()]
    with FakeTensorMode(), torch.no_grad():
        fakes = [torch.empty(t.shape, dtype=torch_dtype(t.dtype)) for _, t in given]
        module = make_fx(step)(*fakes)
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    outputs: list[tuple[OutputRole, int]] = [(Update("p"), 0)]
    outputs += [(StateUpdate(s, "p"), i + 1) for i, s in enumerate(slots)]
    inputs: dict[fx.Node, tuple[InputRole, TensorType]] = dict(
        zip(placeholders, given, strict=True)
    )
    return import_graph(name, module, inputs, outputs, lambda node: None)


def _slots(*names: str) -> Callable[[Options, TensorType], dict[str, Slot]]:
    return lambda options, tensor: {name: Slot(tensor) for name in names}


def _decayed(p: Tensor, grad: Tensor, options: Options) -> Tensor:
    """Add the gradient of weight_decay / 2 * |p|^2."""
    decay = options["weight_decay"]
    return grad + p * decay if decay else grad


def _shrunk(p: Tensor, lr: Tensor, options: Options) -> Tensor:
    """Weight decay apart from the gradient (Loshchilov and Hutter, ICLR 2019)."""
    decay = options["weight_decay"]
    return p * (1 - lr * decay) if decay else p


def _sgd(
    p: Tensor, grad: Tensor, state: State, lr: Tensor, step: Tensor, options: Options
) -> Update_:
    momentum, dampening = options["momentum"], options["dampening"]
    grad = _decayed(p, grad, options)
    if momentum == 0:
        return p - lr * grad, {}
    buffer = state["momentum"] * momentum + grad * (1 - dampening)
    if dampening:
        buffer = torch.where(step == 1, grad, buffer)
    direction = grad + buffer * momentum if options["nesterov"] else buffer
    return p - lr * direction, {"momentum": buffer}


def _sgd_slots(options: Options, tensor: TensorType) -> dict[str, Slot]:
    return {"momentum": Slot(tensor)} if options["momentum"] else {}


def _adam(
    p: Tensor, grad: Tensor, state: State, lr: Tensor, step: Tensor, options: Options
) -> Update_:
    """Kingma and Ba, ICLR 2015."""
    return _adam_step(p, _decayed(p, grad, options), state, lr, step, options)


def _adamw(
    p: Tensor, grad: Tensor, state: State, lr: Tensor, step: Tensor, options: Options
) -> Update_:
    return _adam_step(_shrunk(p, lr, options), grad, state, lr, step, options)


def _adam_step(
    p: Tensor, grad: Tensor, state: State, lr: Tensor, step: Tensor, options: Options
) -> Update_:
    beta1, beta2 = options["betas"]
    mean = torch.lerp(state["mean"], grad, 1 - beta1)
    square = state["square"] * beta2 + grad * grad * (1 - beta2)
    after = {"mean": mean, "square": square}
    if options["amsgrad"]:
        square = torch.maximum(state["largest"], square)
        after["largest"] = square
    root = square.sqrt() / (1 - beta2**step).sqrt()
    return p - (lr / (1 - beta1**step)) * mean / (root + options["eps"]), after


def _adam_slots(options: Options, tensor: TensorType) -> dict[str, Slot]:
    names = ("mean", "square", "largest") if options["amsgrad"] else ("mean", "square")
    return {name: Slot(tensor) for name in names}


def _rmsprop(
    p: Tensor, grad: Tensor, state: State, lr: Tensor, step: Tensor, options: Options
) -> Update_:
    """Tieleman and Hinton 2012; centred as in Graves 2013, arXiv 1308.0850."""
    alpha, momentum = options["alpha"], options["momentum"]
    grad = _decayed(p, grad, options)
    square = state["square"] * alpha + grad * grad * (1 - alpha)
    after = {"square": square}
    spread = square
    if options["centered"]:
        mean = torch.lerp(state["mean"], grad, 1 - alpha)
        after["mean"] = mean
        spread = square - mean * mean
    scaled = grad / (spread.sqrt() + options["eps"])
    if momentum:
        scaled = state["momentum"] * momentum + scaled
        after["momentum"] = scaled
    return p - lr * scaled, after


def _rmsprop_slots(options: Options, tensor: TensorType) -> dict[str, Slot]:
    kept = {"square": True, "mean": options["centered"], "momentum": bool(options["momentum"])}
    return {name: Slot(tensor) for name, needed in kept.items() if needed}


def _adagrad(
    p: Tensor, grad: Tensor, state: State, lr: Tensor, step: Tensor, options: Options
) -> Update_:
    """Duchi, Hazan and Singer, JMLR 2011."""
    grad = _decayed(p, grad, options)
    square = state["square"] + grad * grad
    if decay := options["lr_decay"]:
        lr = lr / (1 + (step - 1) * decay)
    return p - lr * grad / (square.sqrt() + options["eps"]), {"square": square}


def _adagrad_slots(options: Options, tensor: TensorType) -> dict[str, Slot]:
    return {"square": Slot(tensor, float(options["initial_accumulator_value"]))}


def _lion(
    p: Tensor, grad: Tensor, state: State, lr: Tensor, step: Tensor, options: Options
) -> Update_:
    """Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023, program 1."""
    beta1, beta2 = options["betas"]
    direction = (state["mean"] * beta1 + grad * (1 - beta1)).sign()
    mean = state["mean"] * beta2 + grad * (1 - beta2)
    return _shrunk(p, lr, options) - lr * direction, {"mean": mean}


def _adafactor(
    p: Tensor, grad: Tensor, state: State, lr: Tensor, step: Tensor, options: Options
) -> Update_:
    """Shazeer and Stern, ICML 2018, as torch.optim.Adafactor has it."""
    eps1, eps2 = options["eps"]
    floor = torch.finfo(p.dtype).eps if eps1 is None else eps1
    decay = (step ** options["beta2_decay"]).to(p.dtype)
    rate = torch.minimum(lr, 1 / step.sqrt())
    alpha = torch.clamp(_rms(p).double(), min=eps2) * rate
    squares = grad * grad
    if grad.dim() > 1:
        rows = torch.lerp(state["rows"], squares.mean(-1, keepdim=True), decay)
        columns = torch.lerp(state["columns"], squares.mean(-2, keepdim=True), decay)
        after = {"rows": rows, "columns": columns}
        estimate = rows * columns / rows.mean(-2, keepdim=True).clamp(min=floor)
    else:
        estimate = torch.lerp(state["square"], squares, decay)
        after = {"square": estimate}
    update = estimate.clamp(min=floor * floor).rsqrt() * grad
    denominator = torch.clamp(_rms(update).double() / options["d"], min=1.0)
    return _shrunk(p, lr, options) - (alpha / denominator) * update, after


def _rms(x: Tensor) -> Tensor:
    return (x * x).mean().sqrt()


def _adafactor_slots(options: Options, tensor: TensorType) -> dict[str, Slot]:
    """Row and column factors of the second moment; a vector keeps it whole."""
    if tensor.rank < 2:
        return {"square": Slot(tensor)}
    shape = tensor.shape
    return {
        "rows": Slot(tensor.with_shape((*shape[:-1], 1))),
        "columns": Slot(tensor.with_shape((*shape[:-2], 1, shape[-1]))),
    }


_OPTIMIZERS: dict[
    str, tuple[Callable[..., Update_], Callable[[Options, TensorType], dict[str, Slot]]]
] = {
    "sgd": (_sgd, _sgd_slots),
    "adam": (_adam, _adam_slots),
    "adamw": (_adamw, _adam_slots),
    "rmsprop": (_rmsprop, _rmsprop_slots),
    "adagrad": (_adagrad, _adagrad_slots),
    "lion": (_lion, _slots("mean")),
    "adafactor": (_adafactor, _adafactor_slots),
}
