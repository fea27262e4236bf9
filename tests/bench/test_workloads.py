"""Everyone trains the same net with the same numbers, and the arithmetic is counted right."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pockc import runtime
from pockc.ir import DType
from pockc.runtime.artifact import Artifact
from tests.bench import layers, profiling
from tests.bench.arithmetic import multiply_adds
from tests.bench.cases import DOUBLINGS, MODES, SETS, WORKLOADS, Case
from tests.bench.compiling import compile_case
from tests.bench.machine import Peak
from tests.bench.nets import Net, attention, make_net, trained_names
from tests.bench.values import initial_values, load_values, make_batch
from tests.bench.workers import onnx_model
from tests.bench.workers.tensorflow_graph import transposed
from tests.support import close
from tests.tolerances import Tolerance, tolerance

pytestmark = [pytest.mark.needs_torch]

IMAGES = {"batch": 2, "resolution": 32, "classes": 5}
TOKENS = {
    "batch": 2, "sequence": 6, "layers": 2, "hidden": 32, "heads": 2, "inner": 48,
    "vocabulary": 50,
}  # fmt: skip
SMALL = {
    "W1": IMAGES,
    "W3": TOKENS,
    "W5": IMAGES,
    "resnet18": IMAGES,
    "resnet50": IMAGES,
    "distilbert": TOKENS,
    "llama": TOKENS,
    "minilm": TOKENS,
    "efficientnet": IMAGES,
}


def small(workload: str, mode: str = "full") -> Case:
    return Case(workload, mode, SMALL[workload])


def net_of(case: Case) -> Net:
    net = make_net(case.spec)
    load_values(net, initial_values(net))
    return net


def fields_of(case: Case) -> dict[str, Any]:
    return dataclasses.asdict(case.spec)


def eager_loss(case: Case) -> float:
    inputs, labels = map(torch.from_numpy, make_batch(case.spec))
    logits = net_of(case)(inputs)
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten()).item()


def eager() -> Tolerance:
    return tolerance(DType.F32, "eager")


def test_every_workload_has_a_small_one() -> None:
    assert set(SMALL) == set(WORKLOADS)


def test_weights_and_batches_are_the_same_every_time() -> None:
    case = small("W3")
    torch.manual_seed(1)
    first = initial_values(make_net(case.spec))
    torch.manual_seed(2)
    second = initial_values(make_net(case.spec))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[n], second[n]) for n in first)
    assert np.array_equal(make_batch(case.spec)[0], make_batch(case.spec)[0])


# By hand, as in PockEngine: biases and first 1x1 convolutions of the last 7 of 17 blocks.
def test_a_sparse_update_of_mobilenet_is_the_published_one() -> None:
    names = trained_names(make_net(WORKLOADS["W1"]), "sparse")
    expected = [
        f"blocks.{i}.{part}"
        for i in range(10, 17)
        for part in (
            "expand.conv.weight",
            "expand.norm.bias",
            "depthwise.norm.bias",
            "project.norm.bias",
        )
    ]
    assert names == [*expected, "head.norm.bias", "fc.weight", "fc.bias"]


def test_a_sparse_update_of_bert_is_the_published_one() -> None:
    names = trained_names(make_net(small("W3").spec), "sparse")
    weights = {n for n in names if n.endswith("weight")}
    linears = ("query", "key", "value", "output", "up")
    assert weights == {f"blocks.1.{n}.weight" for n in linears} | {"pooler.weight", "fc.weight"}
    assert {n for n in names if n.startswith("blocks.1") and n.endswith("bias")} == {
        f"blocks.1.{n}.bias" for n in (*linears, "down", "attention_norm", "norm")
    }


# The figures that PyTorch's counter and a count by layers gave for the published nets.
@pytest.mark.parametrize(
    ("workload", "mode", "gflop"),
    [
        ("W1", "full", 14.26376),
        ("W1", "sparse", 8.09863),
        ("W5", "full", 0.1691478),
        ("W3", "full", 536.3624),
    ],
)
def test_the_arithmetic_of_the_workloads_is_known(
    workload: str, mode: str, gflop: float
) -> None:
    assert 2e-9 * multiply_adds(Case(workload, mode)) == pytest.approx(gflop, rel=1e-6)


def test_attention_counts_only_the_gradients_that_are_needed() -> None:
    case = small("W3", "sparse")
    spec, sizes = case.spec, case.spec.sizes
    n, t, d, inner = spec.batch, sizes["sequence"], sizes["hidden"], sizes["inner"]
    layer = n * t * (4 * d * d + 2 * d * inner) + 2 * n * t * t * d
    head = n * d * d + n * d * sizes["classes"]
    # The last layer: no error of its input, since nothing before is trained; no gradient of
    # its last weight. In it: errors of output, up and down; gradients of four, and of up.
    products = n * t * (d * d + 2 * d * inner) + n * t * (4 * d * d + d * inner)
    backward = products + 4 * n * t * t * d + 2 * head
    assert multiply_adds(case) == 2 * layer + head + backward


@pytest.mark.parametrize("workload", [w for w in SMALL if layers.supported(WORKLOADS[w].net)])
def test_the_other_definition_computes_what_the_module_computes(workload: str) -> None:
    case = small(workload)
    net, x = net_of(case), torch.from_numpy(make_batch(case.spec)[0])
    found = layers.outputs(TorchLayers(net), x, fields_of(case))
    close(found.detach().numpy(), net(x).detach().numpy(), eager())


@pytest.mark.parametrize("workload", ["W1", "W3", "resnet18"])
def test_the_onnx_model_computes_what_the_module_computes(workload: str) -> None:
    session = pytest.importorskip("onnxruntime", reason="pip install onnxruntime onnx")
    case = small(workload)
    net, x = net_of(case), make_batch(case.spec)[0]
    values = {n: t.detach().numpy() for n, t in net.state_dict().items()}
    made = onnx_model.make_model(values, fields_of(case), x)
    opened = session.InferenceSession(made.SerializeToString())
    (found,) = opened.run(["logits"], {"x": x})
    close(found, net(torch.from_numpy(x)).detach().numpy(), eager())


def test_weights_for_tensorflow_are_turned_once() -> None:
    dense, depthwise = np.zeros((8, 4, 3, 3)), np.zeros((8, 1, 3, 3))
    assert transposed("x.conv.weight", dense).shape == (3, 3, 4, 8)
    assert transposed("x.conv.weight", depthwise).shape == (3, 3, 8, 1)
    assert transposed("fc.weight", np.zeros((5, 7))).shape == (7, 5)
    assert transposed("words.weight", np.zeros((5, 7))).shape == (5, 7)


@pytest.fixture(
    scope="module", params=[("W1", "sparse"), ("W3", "sparse"), ("llama", "full")], ids=str
)
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Case, Artifact]]:
    case = small(*request.param)
    path: Path = tmp_path_factory.mktemp("bench") / "model.pock"
    compile_case(case, path, threads=1)
    with runtime.load(path, threads=1) as artifact:
        yield case, artifact


@pytest.mark.slow
@pytest.mark.needs_tvm
def test_pockc_trains_the_same_parameters_to_the_same_first_loss(
    compiled: tuple[Case, Artifact],
) -> None:
    case, artifact = compiled
    net = make_net(case.spec)
    tensors = artifact.manifest.tensors
    assert {n for n, t in tensors.items() if t.kind == "param"} == {
        n for n, _ in net.named_parameters()
    }
    assert {n for n, t in tensors.items() if t.trained} == set(trained_names(net, case.mode))
    loss = artifact.train_step(*make_batch(case.spec), lr=0.0)
    assert loss == pytest.approx(eager_loss(case), rel=1e-4)


@pytest.mark.slow
@pytest.mark.needs_tvm
def test_the_profile_has_all_of_the_arithmetic(compiled: tuple[Case, Artifact]) -> None:
    case, artifact = compiled
    lines = profiling.profile(artifact, make_batch(case.spec), steps=2)
    assert len(lines) == artifact.manifest.entries["train_step"].steps
    assert sum(line.flops for line in lines) == 2 * multiply_adds(case)
    assert sum(m.flops for m in profiling.merged(lines, "family")) == 2 * multiply_adds(case)
    assert all(line.ms >= 0 and line.nbytes > 0 for line in lines)
    made = list(profiling.tables(lines, Peak(1, 100.0, 10.0), shown=5))
    assert [m.row_count for m in made] == [
        min(5, len({line.symbol for line in lines})),
        len({line.family for line in lines}) + 1,
    ]


def test_cases_have_names_of_their_own() -> None:
    for cases in SETS.values():
        assert len({c.key for c in cases}) == len(cases)
        assert {c.mode for c in cases} <= set(MODES)
    assert Case("W1", "sparse", {"batch": 1}).key == "W1-batch1-sparse"
    assert Case("W3", "full", {"sequence": 50}).title == "BERT-base 50, batch 8"


def test_a_doubling_doubles_one_size() -> None:
    for size, small_case, large in DOUBLINGS:
        before = {**small_case.spec.sizes, "batch": small_case.spec.batch}
        after = {**large.spec.sizes, "batch": large.spec.batch}
        changed = {k: (before[k], after[k]) for k in after if before[k] != after[k]}
        assert changed == {size: (before[size], 2 * before[size])}


class TorchLayers:
    """`Layers` by PyTorch, to hold the second definition against the module."""

    relu, relu6, gelu, tanh, add = (
        staticmethod(f)
        for f in (functional.relu, functional.relu6, functional.gelu, torch.tanh, torch.add)
    )

    def __init__(self, net: Net) -> None:
        self.net = net

    def conv_norm(
        self, name: str, x: Tensor, *, size: int, stride: int = 1, depthwise: bool = False
    ) -> Tensor:
        p = dict(self.net.get_submodule(name).state_dict())
        groups = x.shape[1] if depthwise else 1
        y = functional.conv2d(x, p["conv.weight"], None, stride, size // 2, 1, groups)
        parts = (p[f"norm.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(y, *parts)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return self.net.get_submodule(name)(x)

    embedding = layer_norm = linear

    def parameter(self, name: str) -> Tensor:
        return self.net.get_parameter(name)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return attention(q, k, v, heads, causal=False)

    def max_pool(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2, 1)

    def mean_of_pixels(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def first_token(self, x: Tensor) -> Tensor:
        return x[:, 0]
