"""Losses against torch.nn.functional: value, gradients, and figures per row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from pockc.frontend.capture import capture
from pockc.frontend.captured import LabelInfo
from pockc.ir import Gradient, Loss, Metric, TensorType, i64
from pockc.ir.types import DType
from tests.frontend.helpers import agree, problem_text, run

N, T, C = 4, 3, 5
WEIGHTS = [0.5, 1.0, 2.0, 0.25, 1.5]


class Table(nn.Module):
    """Its outputs are a parameter, scaled by the input, so that gradients of outputs show."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.outputs = nn.Parameter(torch.randn(shape, generator=g, dtype=torch.float64) * 2)

    def forward(self, scale: Tensor) -> Tensor:
        return self.outputs * scale


def scale(*shape: int) -> Tensor:
    """An input with the rows of the batch."""
    return torch.ones(shape[0], *(1,) * (len(shape) - 1), dtype=torch.float64)


def labels(*shape: int, ignored: int | None = None) -> Tensor:
    found = torch.arange(int(np.prod(shape))).reshape(shape) * 7 % C
    if ignored is not None:
        found.reshape(-1)[1] = ignored
    return found


def real(*shape: int) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=g, dtype=torch.float64)


W = torch.tensor(WEIGHTS, dtype=torch.float64)
CASES: list[tuple[Any, tuple[int, ...], Tensor, Any]] = [
    ("cross_entropy", (N, C), labels(N), F.cross_entropy),
    ("cross_entropy", (N, C), labels(N, ignored=-100), F.cross_entropy),
    (
        {"name": "cross_entropy", "label_smoothing": 0.2, "weight": WEIGHTS, "ignore_index": 0},
        (N, C),
        labels(N),
        lambda x, y: F.cross_entropy(x, y, W, ignore_index=0, label_smoothing=0.2),
    ),
    (
        {"name": "cross_entropy", "label_smoothing": 0.1},
        (N, T, C),
        labels(N, T, ignored=-100),
        lambda x, y: F.cross_entropy(x.flatten(0, 1), y.flatten(), label_smoothing=0.1),
    ),
    ("cross_entropy", (N, C, 2, T), labels(N, 2, T), F.cross_entropy),
    ("cross_entropy", (N, C), real(N, C).softmax(-1), F.cross_entropy),
    (
        {"name": "cross_entropy", "label_smoothing": 0.3, "weight": WEIGHTS},
        (N, C),
        real(N, C).softmax(-1),
        lambda x, y: F.cross_entropy(x, y, W, label_smoothing=0.3),
    ),
    ("bce_with_logits", (N, C), (real(N, C) > 0).double(), F.binary_cross_entropy_with_logits),
    (
        {"name": "bce_with_logits", "pos_weight": WEIGHTS},
        (N, C),
        (real(N, C) > 0).double(),
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, pos_weight=W),
    ),
    ("mse", (N, C), real(N, C), F.mse_loss),
    ("mse", (N,), real(N), F.mse_loss),
    ("l1", (N, T, C), real(N, T, C), F.l1_loss),
    ("huber", (N, C), real(N, C), F.huber_loss),
    (
        {"name": "huber", "delta": 0.3},
        (N, C),
        real(N, C),
        lambda x, y: F.huber_loss(x, y, delta=0.3),
    ),
    ("smooth_l1", (N, C), real(N, C), F.smooth_l1_loss),
    (
        {"name": "smooth_l1", "beta": 0.2},
        (N, C),
        real(N, C),
        lambda x, y: F.smooth_l1_loss(x, y, beta=0.2),
    ),
]


@pytest.mark.parametrize(("loss", "shape", "target", "expected"), CASES)
def test_loss_and_gradient_are_those_of_torch(
    loss: Any, shape: tuple[int, ...], target: Tensor, expected: Any
) -> None:
    model = Table(*shape)
    captured = capture(model, (scale(*shape),), loss, target_example=target)
    batch = (scale(*shape), target)
    value = expected(model(batch[0]), target)
    value.backward()
    actual = run(captured.train, captured, batch)
    agree(actual[Loss()], value)
    assert model.outputs.grad is not None
    agree(actual[Gradient("outputs")], model.outputs.grad)
    with pytest.raises(AssertionError):
        agree(actual[Gradient("outputs")], -model.outputs.grad)
    rows = run(captured.evaluate, captured, batch)
    assert rows[Metric("loss_rows")].shape == rows[Metric("weight_rows")].shape == (shape[0],)
    mean = rows[Metric("loss_rows")].sum() / rows[Metric("weight_rows")].sum()
    agree(np.asarray(mean), value)


def test_correct_rows_leave_out_what_is_ignored() -> None:
    model, target = Table(N, T, C), labels(N, T, ignored=-100)
    captured = capture(model, (scale(N, T, C),))
    rows = run(captured.evaluate, captured, (scale(N, T, C), target))
    right = (model.outputs.argmax(-1) == target).sum(1).double()
    agree(rows[Metric("correct_rows")], right)
    agree(rows[Metric("count_rows")], torch.tensor([2.0, 3.0, 3.0, 3.0], dtype=torch.float64))


def test_a_binary_answer_is_right_on_the_same_side_of_one_half() -> None:
    model, target = Table(N, C), (real(N, C) > 0).double()
    captured = capture(model, (scale(N, C),), "bce_with_logits")
    rows = run(captured.evaluate, captured, (scale(N, C), target))
    agree(rows[Metric("correct_rows")], ((model.outputs > 0) == (target > 0.5)).sum(1).double())


def test_figures_of_a_float32_model_are_float32() -> None:
    captured = capture(Table(N, C).float(), (scale(N, C).float(),))
    for output in captured.evaluate.outputs:
        assert captured.evaluate.type_of(output.value) == TensorType((N,), DType.F32)


@pytest.mark.parametrize(
    ("shape", "target"),
    [((N, C), (N,)), ((N, T, C), (N, T)), ((N, C, 2, 3), (N, 2, 3))],
)
def test_labels_are_derived_from_the_outputs(
    shape: tuple[int, ...], target: tuple[int, ...]
) -> None:
    captured = capture(Table(*shape), (scale(*shape),))
    assert [(t.name, t.type, t.rows) for t in captured.targets] == [
        ("target", i64(*target), True)
    ]
    assert captured.labels == LabelInfo(C, -100)


def test_no_gradient_scatters() -> None:
    captured = capture(Table(N, T, C), (scale(N, T, C),))
    assert not [n.op for n in captured.train.nodes if n.op.startswith(("take", "put"))]


def custom(outputs: Tensor, low: Tensor, high: Tensor) -> Tensor:
    below = torch.relu(low - outputs)
    return (below + torch.relu(outputs - high)).square().mean()


def test_a_loss_of_the_users_takes_several_targets() -> None:
    model, low = Table(N, C), real(N, C)
    captured = capture(model, (scale(N, C),), custom, target_example=(low, low + 1))
    assert [t.name for t in captured.targets] == ["target_0", "target_1"]
    assert captured.loss == "custom"
    expected = custom(model.outputs, low, low + 1)
    batch = (scale(N, C), low, low + 1)
    agree(run(captured.train, captured, batch)[Loss()], expected)
    agree(run(captured.evaluate, captured, batch)[Loss()], expected)


def test_nodes_of_a_users_loss_name_its_lines() -> None:
    low = real(N, C)
    captured = capture(Table(N, C), (scale(N, C),), custom, target_example=(low, low + 1))
    texts = {n.source.text for n in captured.train.nodes if n.source}
    assert "below = torch.relu(low - outputs)" in texts
    assert "return (below + torch.relu(outputs - high)).square().mean()" in texts


def test_a_loss_may_hold_tensors_and_be_a_module() -> None:
    model = Table(N, C)
    loss = nn.CrossEntropyLoss(weight=W)
    captured = capture(model, (scale(N, C),), loss, target_example=labels(N))
    actual = run(captured.train, captured, (scale(N, C), labels(N)))
    agree(actual[Loss()], loss(model.outputs, labels(N)))


def test_a_loss_may_need_no_target() -> None:
    captured = capture(Table(N, C), (scale(N, C),), lambda outputs: outputs.square().sum())
    assert captured.targets == ()


@pytest.mark.parametrize(
    ("loss", "target", "expected"),
    [
        (
            "cross-entropy",
            None,
            "[unknown-loss] loss: 'cross-entropy' is given\n"
            "    fix  did you mean 'cross_entropy'? choose from: cross_entropy, "
            "bce_with_logits, mse, l1, huber, smooth_l1, model",
        ),
        (
            {"name": "cross_entropy", "smoothing": 0.1, "label_smoothing": 1},
            None,
            "[loss-option] loss 'cross_entropy' has no option 'smoothing'\n"
            "    fix  did you mean 'label_smoothing'? choose from: label_smoothing, "
            "ignore_index, weight\n"
            "[loss-option] loss 'cross_entropy': label_smoothing is 1, expected a number "
            "from 0 to below 1",
        ),
        (
            {"name": "cross_entropy", "weight": [1, 2]},
            None,
            "[loss-option] loss 'cross_entropy': weight has 2 numbers, the model has 5 classes",
        ),
        (
            "cross_entropy",
            torch.zeros(3),
            "[loss-target] cross_entropy cannot compare outputs [4, 5] with targets "
            "float32[3]\n"
            "    fix  give integer targets of the outputs' shape without its class dimension",
        ),
        (
            "mse",
            torch.zeros(4),
            "[loss-target] loss 'mse' compares like with like, found outputs [4, 5] "
            "and targets [4]",
        ),
        (
            "model",
            None,
            "[loss-output] the model is to return its loss, a scalar, but returns [4, 5]\n"
            "    fix  return the loss as .loss, as ['loss'] or first, or choose a loss: "
            "cross_entropy, bce_with_logits, mse, l1, huber, smooth_l1",
        ),
        (
            custom,
            torch.zeros(4, 5),
            "[loss-target] the loss function custom takes 2 targets after the outputs, "
            "1 is given\n"
            "    fix  give example targets of one batch: target_example=... (example_target "
            "in a model file)",
        ),
        (
            lambda outputs, target: outputs - target,
            torch.zeros(4, 5),
            "[loss-output] the loss function must return a scalar, it returns [4, 5]\n"
            "    fix  take the mean or the sum",
        ),
    ],
)
def test_a_wrong_loss_says_what_is_expected(loss: Any, target: Any, expected: str) -> None:
    def call() -> object:
        return capture(Table(N, C), (scale(N, C),), loss, target_example=target)

    assert problem_text(call) == expected


def per_token(outputs: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), target.flatten())


def distance(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs - target).abs().mean()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(per_token, i64(N, T)), (distance, TensorType((N, T, C), DType.F64))],
)
def test_one_target_of_a_users_loss_is_derived(loss: Any, expected: TensorType) -> None:
    captured = capture(Table(N, T, C), (scale(N, T, C),), loss)
    assert [t.type for t in captured.targets] == [expected]


def test_a_target_that_may_be_two_things_must_be_given() -> None:
    call = lambda: capture(Table(N, C), (scale(N, C),), nn.CrossEntropyLoss())  # noqa: E731
    assert problem_text(call) == (
        "[loss-target] the loss function CrossEntropyLoss takes 1 target after the outputs, "
        "0 are given\n"
        "    fix  give example targets of one batch: target_example=... (example_target "
        "in a model file)"
    )


def broken(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs @ target).mean()


def test_a_loss_that_raises_shows_its_line() -> None:
    text = problem_text(
        lambda: capture(Table(N, C), (scale(N, C),), broken, target_example=real(N, C))
    )
    what, where, fix = text.splitlines()
    assert what.startswith("[loss-function] the loss function raised RuntimeError: ")
    assert where.startswith("    from tests/frontend/test_losses.py:")
    assert where.endswith(" in broken: return (outputs @ target).mean()")
    assert fix == (
        "    fix  it takes the model's outputs, then the targets, and returns a scalar"
    )
