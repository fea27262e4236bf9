"""What cannot be captured is said in full, all of it, with the user's line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from pockc.frontend.capture import capture
from tests.frontend.helpers import problem_text

FILE = "tests/frontend/test_errors.py"
LINES = Path(__file__).read_text(encoding="utf-8").splitlines()
X = torch.randn(6, 4)


def line(text: str) -> int:
    """Return the number of the first line that reads so."""
    return next(i + 1 for i, found in enumerate(LINES) if found.strip() == text)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)


def message(model: type[nn.Module], *inputs: Tensor, **options: Any) -> str:
    return problem_text(lambda: capture(model(), inputs or (X,), **options))


class Sorts(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.sort(self.fc(x))[0]
        y = y + torch.special.i0(y)
        return y + torch.special.i0(y * 2)


def test_unsupported_operations_are_reported_all_at_once() -> None:
    found = [
        ("sort", "%sort : f32[6,3], i64[6,3]", "%addmm", "y = torch.sort(self.fc(x))[0]"),
        ("i0", "%i0 : f32[6,3]", "%getitem", "y = y + torch.special.i0(y)"),
        ("i0", "%i0_1 : f32[6,3]", "%mul", "return y + torch.special.i0(y * 2)"),
        ("special_i1", "%special_i1 : f32[6,3]", "%mul", "return y + torch.special.i0(y * 2)"),
        ("special_i1", "%special_i1_1 : f32[6,3]", "%getitem", "y = y + torch.special.i0(y)"),
    ]
    assert message(Sorts) == "\n".join(
        f"[unsupported-op] aten.{op}.default is not supported\n"
        f"    at   {result} = aten.{op}.default({operand})\n"
        f"    from {FILE}:{line(text)} in Sorts.forward: {text}\n"
        "    fix  write it with supported operations, or add a handler in "
        "pockc/frontend/importer"
        for op, result, operand, text in found
    )


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return F.avg_pool2d(y.flatten(1)[:, None, None], 1, divisor_override=3).flatten(1)


def test_unsupported_forms_are_reported_all_at_once() -> None:
    text = message(Volume, torch.randn(1, 1, 3, 3, 3))
    assert "aten.convolution.default with 3 spatial dimensions is not supported" in text
    assert "aten.convolution_backward.default with 3 spatial dimensions" in text
    assert "aten.avg_pool2d.default with divisor_override is not supported" in text
    assert f"from {FILE}:{line('y = self.conv(x)')} in Volume.forward: y = self.conv(x)" in text


class Selects(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        h = h[h[:, 0] > 0]
        return h.sum(0, keepdim=True)


def test_a_shape_that_depends_on_data() -> None:
    text = "h = h[h[:, 0] > 0]"
    assert message(Selects) == (
        "[dynamic-shape] the shape of %index depends on data: [u0, 3], "
        "and every shape must be fixed\n"
        "    at   %index = aten.index.Tensor\n"
        f"    from {FILE}:{line(text)} in Selects.forward: {text}\n"
        "    fix  keep all elements and use a mask (torch.where) instead of selecting some"
    )


class Chooses(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        if h.sum() > 0:
            return h
        return -h


def test_control_flow_that_depends_on_data(capfd: pytest.CaptureFixture[str]) -> None:
    text = "if h.sum() > 0:"
    assert message(Chooses) == (
        "[capture] the model's control flow depends on the values of a tensor, and a compiled "
        "step runs the same operations for every batch\n"
        f"    from {FILE}:{line(text)} in forward: {text}\n"
        "    fix  express the choice with torch.where or a mask, or decide it outside forward"
    )
    assert capfd.readouterr() == ("", "")


class Asks(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * x.sum().item()


def test_a_tensor_that_becomes_a_number() -> None:
    text = "return self.fc(x) * x.sum().item()"
    assert message(Asks) == (
        "[capture] the value of a tensor becomes a number of Python's, which a compiled step "
        "cannot look at\n"
        "    at   %item = aten.item.default\n"
        f"    from {FILE}:{line(text)} in Asks.forward: {text}\n"
        "    fix  keep it a tensor: leave out item(), int() or float()"
    )


class Imagines(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        z = y.to(torch.complex64)
        return (z * z).abs()


def test_complex_numbers_are_reported_by_line() -> None:
    text = message(Imagines)
    first = "z = y.to(torch.complex64)"
    assert (
        "[unsupported-dtype] _to_copy has the element type torch.complex64; choose from: f64, "
        "f32, f16, bf16, i64, i32, i16, i8, u8, b1\n"
        "    at   %_to_copy : complex64[6,3] = aten._to_copy.default(%addmm)\n"
        f"    from {FILE}:{line(first)} in Imagines.forward: {first}\n"
        "    fix  compute it with real numbers of a supported type"
    ) in text
    assert f"from {FILE}:{line('return (z * z).abs()')} in Imagines.forward" in text


class Fails(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.reshape(7, 5))


def test_a_model_that_does_not_run() -> None:
    text = "return self.fc(x.reshape(7, 5))"
    assert message(Fails) == (
        "[capture] torch.export cannot trace the model: RuntimeError: shape '[7, 5]' is "
        "invalid for input of size 24\n"
        f"    from {FILE}:{line(text)} in forward: {text}\n"
        "    fix  check that model(*example_inputs) runs; torch's own error is above"
    )


class Inverts(Net):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(self.fc(x)[:3])


def test_an_operation_that_cannot_even_be_traced() -> None:
    text = "return torch.linalg.inv(self.fc(x)[:3])"
    what, at, where, fix = message(Inverts).splitlines()
    assert what.startswith("[unsupported-op] aten.linalg_inv.default cannot be traced: ")
    assert at == "    at   %linalg_inv = aten.linalg_inv.default"
    assert where == f"    from {FILE}:{line(text)} in Inverts.forward: {text}"
    assert fix == "    fix  write it with supported operations"


@pytest.mark.parametrize(
    ("inputs", "options", "expected"),
    [
        (
            (),
            {},
            "[example-inputs] example_inputs holds no tensor\n"
            "    fix  give one batch: a tensor, a tuple of tensors or a mapping of named ones",
        ),
        (
            (X.to(torch.complex64), X.to(torch.complex128)),
            {},
            "[example-inputs] example_inputs[0] has the unsupported element type "
            "torch.complex64\n"
            "[example-inputs] example_inputs[1] has the unsupported element type "
            "torch.complex128",
        ),
        (
            (X.to("meta"),),
            {},
            "[example-inputs] the model or its inputs are on meta\n"
            "    fix  move them: model.cpu(), and tensor.cpu() for every input",
        ),
        (
            (X,),
            {"micro_batches": 4},
            "[micro-batches] a batch of 6 rows cannot be split into 4 equal parts\n"
            "    fix  choose a number that divides the batch",
        ),
        (
            (X,),
            {"batch_norm": "eval"},
            "[batch-norm-option] batch_norm is 'eval'\n    fix  choose from: frozen, update",
        ),
    ],
)
def test_wrong_arguments_say_what_is_expected(
    inputs: tuple[Tensor, ...], options: dict[str, Any], expected: str
) -> None:
    assert problem_text(lambda: capture(nn.Linear(4, 3), inputs, **options)) == expected
