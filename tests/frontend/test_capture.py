"""What a capture says about a model, and that its graphs compute what the model computes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from pockc.frontend.capture import capture
from pockc.frontend.captured import Captured, ModuleInfo
from pockc.frontend.export import Forward
from pockc.ir import (
    Batch,
    Buffer,
    BufferUpdate,
    DType,
    Gradient,
    Loss,
    Metric,
    Param,
    Prediction,
    TensorType,
    f32,
    i64,
)
from pockc.ir.verify import verify
from tests import nets
from tests.frontend.helpers import agree, as_double, predictions, run
from tests.tolerances import tolerance


def cross_entropy(outputs: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), target.reshape(-1))


def step_of(name: str, rows: int = 3) -> tuple[nn.Module, tuple[Tensor, ...], Captured]:
    model = nets.make(name).double().eval()
    batch = as_double(nets.batches(name, rows, 1)[0])
    return model, batch, capture(model, batch[:-1], target_example=batch[-1])


@pytest.mark.parametrize("name", nets.NETS)
def test_a_net_computes_what_pytorch_computes(name: str) -> None:
    model, batch, captured = step_of(name)
    # Angles of the decoder's positions are float32 in any model.
    kind = "rewrite" if name != "llama" else None
    allowed = tolerance(DType.F64, kind) if kind else tolerance(DType.F32, "rewrite")
    for graph in (captured.train, captured.evaluate, captured.predict):
        verify(graph)
    loss = cross_entropy(model(*batch[:-1]), batch[-1])
    loss.backward()
    actual = run(captured.train, captured, batch)
    np.testing.assert_allclose(actual[Loss()], loss.item(), rtol=allowed.rtol)
    named = dict(model.named_parameters())
    assert set(captured.parameters) == set(named)
    largest = max(float(p.grad.abs().max()) for p in named.values() if p.grad is not None)
    for parameter, tensor in named.items():
        assert tensor.grad is not None
        np.testing.assert_allclose(
            actual[Gradient(parameter)],
            tensor.grad.numpy(),
            rtol=allowed.rtol,
            atol=allowed.atol * largest,
            err_msg=parameter,
        )
    rows = run(captured.evaluate, captured, batch)
    mean = rows[Metric("loss_rows")].sum() / rows[Metric("weight_rows")].sum()
    np.testing.assert_allclose(mean, loss.item(), rtol=allowed.rtol)
    (shown,) = predictions(run(captured.predict, captured, batch))
    expected = model(*batch[:-1]).detach().numpy()
    np.testing.assert_allclose(shown, expected, rtol=allowed.rtol, atol=allowed.atol)


class Everything(nn.Module):
    """A little of all that a model can have."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.block = nn.ModuleDict({"fc": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.gain = nn.Parameter(torch.ones(4))
        self.offset = nn.Parameter(torch.zeros(7))
        self.unused = nn.Linear(2, 2)
        self.shifts = nn.Parameter(torch.arange(7), requires_grad=False)
        self.register_buffer("mask", torch.ones(7), persistent=False)
        self.register_buffer("count", torch.tensor(3))

    def forward(self, ids: Tensor, keep: Tensor, extra: Tensor | None = None) -> Tensor:
        x = self.block["norm"](self.block["fc"](self.embed(ids))) * self.gain
        x = torch.where(keep[..., None], x, torch.zeros(()))
        if extra is not None:
            x = x + extra
        return self.head(x.mean(1)) * self.mask + self.offset + self.shifts


IDS, KEEP = torch.arange(6).reshape(2, 3), torch.ones(2, 3, dtype=torch.bool)


@pytest.fixture(scope="module")
def everything() -> Captured:
    return capture(Everything(), (IDS, KEEP), class_names=["a"] * 7)


def test_facts_about_inputs(everything: Captured) -> None:
    assert [(i.name, i.type, i.rows) for i in everything.inputs] == [
        ("ids", i64(2, 3), True),
        ("keep", TensorType((2, 3), DType.B1), True),
    ]
    assert everything.class_names == ("a",) * 7
    assert everything.micro_batches == 1


def test_tied_weights_are_one_parameter(everything: Captured) -> None:
    assert everything.aliases == {"head.weight": "embed.weight"}
    assert "head.weight" not in everything.values
    assert "head.weight" in everything.state_names
    assert everything.parameters["embed.weight"].module == "embed"


def test_what_can_be_trained_is_what_the_loss_depends_on(everything: Captured) -> None:
    assert list(everything.parameters) == [
        "gain",
        "offset",
        "embed.weight",
        "block.fc.weight",
        "block.fc.bias",
        "block.norm.weight",
        "block.norm.bias",
    ]
    gradients = {o.role.param for o in everything.train.outputs if isinstance(o.role, Gradient)}
    assert gradients == set(everything.parameters)


def test_a_bias_is_what_is_only_added(everything: Captured) -> None:
    kinds = {name: p.kind for name, p in everything.parameters.items()}
    assert [name for name, kind in kinds.items() if kind == "bias"] == [
        "offset",
        "block.fc.bias",
        "block.norm.bias",
    ]


def test_parameters_know_their_place(everything: Captured) -> None:
    info = everything.parameters["block.fc.weight"]
    assert (info.module, info.module_type, info.shape) == ("block.fc", "Linear", (4, 4))
    order = sorted(everything.parameters.values(), key=lambda p: p.first_use)
    assert [p.name for p in order][:3] == ["embed.weight", "block.fc.weight", "block.fc.bias"]
    assert order[-1].name == "offset"


def test_values_hold_all_tensors_and_names_those_of_the_state(everything: Captured) -> None:
    model = Everything()
    assert everything.state_names == tuple(model.state_dict())
    assert set(everything.values) == {
        *(n for n, _ in model.named_parameters()),
        *(n for n, _ in model.named_buffers()),
    }
    roles = {i.role for i in everything.train.inputs}
    assert {Param("shifts"), Buffer("mask"), Batch("ids")} <= roles
    assert Buffer("count") not in roles
    assert Param("unused.weight") not in roles


def test_modules_are_listed_in_order(everything: Captured) -> None:
    assert everything.modules[:3] == (
        ModuleInfo("", "Everything", "tests"),
        ModuleInfo("embed", "Embedding", "torch"),
        ModuleInfo("block", "ModuleDict", "torch"),
    )


def test_heads_are_found_where_the_projections_are() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    captured = capture(model, (torch.randn(2, 3, 8),), "mse")
    facts = {m.name: m.facts for m in captured.modules}
    assert facts["self_attn"] == {"num_heads": 2, "head_dim": 4}
    assert facts["linear1"] == {}


def test_named_inputs_keep_the_order_of_the_arguments() -> None:
    given = {"keep": KEEP, "ids": IDS, "extra": torch.randn(2, 3, 4)}
    captured = capture(Everything(), given)
    assert sorted(i.name for i in captured.inputs) == ["extra", "ids", "keep"]
    expected = Everything()(**given)
    (shown,) = predictions(
        run(captured.predict, captured, [given[i.name] for i in captured.inputs])
    )
    assert shown.shape == tuple(expected.shape)


def test_one_tensor_needs_no_tuple() -> None:
    captured = capture(nn.Linear(3, 2), torch.randn(4, 3))
    assert [i.type for i in captured.inputs] == [f32(4, 3)]


def test_a_model_is_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[2].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    capture(model, torch.randn(4, 3), batch_norm="update")
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_capture_is_deterministic() -> None:
    first, second = (capture(nets.make("bert"), _example("bert")) for _ in range(2))
    assert str(first.train) == str(second.train)
    assert str(first.evaluate) == str(second.evaluate)


def _example(name: str, rows: int = 3) -> tuple[Tensor, ...]:
    return tuple(nets.batches(name, rows, 1)[0][:-1])


class Returns(nn.Module):
    """Returns what it is told to."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.fc, self.make = nn.Linear(4, 3), make

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        y = self.fc(x)
        return self.make(y, F.cross_entropy(y, labels))


@pytest.mark.parametrize(
    "make",
    [
        lambda y, loss: {"loss": loss, "logits": y, "hidden": y * 2},
        lambda y, loss: (loss, y),
        lambda y, loss: {"loss": loss, "scores": y},
    ],
)
def test_a_model_may_return_its_loss(make: Any) -> None:
    model, x, labels = Returns(make).double(), torch.randn(5, 4).double(), torch.arange(5) % 3
    captured = capture(model, (x, labels), "model")
    assert captured.loss == "model"
    assert captured.targets == ()
    expected = F.cross_entropy(model.fc(x), labels)
    agree(run(captured.train, captured, (x, labels))[Loss()], expected)
    assert [o.role for o in captured.evaluate.outputs] == [Loss()]
    assert [o.role for o in captured.predict.outputs] == [Prediction("0")]
    assert [i.role for i in captured.predict.inputs if isinstance(i.role, Batch)] == [
        Batch("x")
    ]
    (shown,) = predictions(run(captured.predict, captured, (x,)))
    agree(shown, model.fc(x))


def test_micro_batches_train_on_a_part_and_evaluate_on_all() -> None:
    captured = capture(nn.Linear(4, 3), torch.randn(6, 4), micro_batches=3)
    shapes = {
        name: [i.type.shape for i in graph.inputs if isinstance(i.role, Batch)]
        for name, graph in (("train", captured.train), ("evaluate", captured.evaluate))
    }
    assert shapes == {"train": [(2, 4), (2,)], "evaluate": [(6, 4), (6,)]}
    assert captured.inputs[0].shape == (6, 4)


class Table(nn.Module):
    """Adds an input that has no rows."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return x + table


def test_an_input_without_rows_is_not_split() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.register_module("table", Table())
    model.forward = lambda x, table: model.table(model[0](x), table)  # type: ignore[method-assign]
    captured = capture(model, (torch.randn(6, 4), torch.randn(1, 4)), "mse", micro_batches=2)
    assert [i.rows for i in captured.inputs] == [True, False]
    shapes = [i.type.shape for i in captured.train.inputs if isinstance(i.role, Batch)]
    assert shapes == [(3, 4), (1, 4), (3, 4)]


def batch_norm_net() -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.uniform_(norm.weight)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), norm, nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)
    )
    return net.double()


@pytest.mark.parametrize("mode", ["frozen", "update"])
def test_batch_norm_is_frozen_or_updated(mode: Any) -> None:
    model, x, y = batch_norm_net(), torch.randn(6, 3, 5, 5).double(), torch.arange(6) % 2
    captured = capture(model, (x,), batch_norm=mode)
    model.train(mode == "update")
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    actual = run(captured.train, captured, (x, y))
    agree(actual[Loss()], loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        agree(actual[Gradient(name)], parameter.grad)
    updates = {role.name: v for role, v in actual.items() if isinstance(role, BufferUpdate)}
    buffers = dict(model.named_buffers())
    assert set(updates) == (set(buffers) if mode == "update" else set())
    for name, array in updates.items():
        agree(array, buffers[name])
    assert captured.parameters["1.bias"].kind == "bias"
    assert captured.parameters["1.weight"].kind == "weight"


class Regions(nn.Module):
    """Regions with gradients off, with another precision, and computed again in backward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            fixed = self.a(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = self.b(x)
        again = checkpoint(lambda v: F.relu(self.c(v)), x, use_reentrant=False)
        return fixed + rough.float() + again


def test_regions_mean_what_they_mean_in_pytorch() -> None:
    model, x, y = Regions(), torch.randn(3, 4), torch.arange(3)
    captured = capture(model, x)
    assert set(captured.parameters) == {"b.weight", "b.bias", "c.weight", "c.bias"}
    assert any(n.type.dtype is DType.BF16 for n in captured.train.nodes if n.op == "matmul")
    actual = run(captured.train, captured, (x, y))[Loss()]
    np.testing.assert_allclose(actual, F.cross_entropy(model(x), y).item(), rtol=2e-2)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_unrolled(kind: Any) -> None:
    model, x = kind(3, 4, batch_first=True).double(), torch.randn(2, 3, 3).double()
    captured = capture(model, (x,), lambda outputs: outputs[0].square().mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = model(x)[0].square().mean()
    loss.backward()
    actual = run(captured.train, captured, (x,))
    agree(actual[Loss()], loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        agree(actual[Gradient(name)], parameter.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_are_captured(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3)).to(
        dtype
    )
    captured = capture(model, torch.randn(2, 4).to(dtype))
    assert captured.parameters["0.weight"].dtype in (DType.F16, DType.BF16)
    assert captured.predict.type_of(captured.predict.outputs[0].value).dtype.is_float


class Scales(nn.Module):
    """Does something else in training, without any operation that shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.drop = nn.Linear(4, 3), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc(x)) * (2.0 if self.training else 1.0)


def test_whatever_asks_for_the_mode_gets_it() -> None:
    model, x, y = Scales().double(), torch.randn(3, 4).double(), torch.arange(3)
    captured = capture(model, x)
    actual = run(captured.train, captured, (x, y))
    agree(actual[Loss()], F.cross_entropy(model.train()(x), y))
    (shown,) = predictions(run(captured.predict, captured, (x,)))
    agree(shown, model.eval()(x))


def test_watching_who_asks_for_the_mode_leaves_no_trace() -> None:
    capture(Scales(), torch.randn(3, 4))
    assert "training" not in vars(nn.Module)


def test_one_trace_or_two_give_the_same_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nets.make("bert")
    one = capture(model, _example("bert"))
    monkeypatch.setattr(Forward, "is_same", lambda *_: False)
    two = capture(model, _example("bert"))
    for a, b in (
        (one.train, two.train),
        (one.evaluate, two.evaluate),
        (one.predict, two.predict),
    ):
        assert str(a) == str(b)
