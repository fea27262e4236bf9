from __future__ import annotations

import numpy as np
import pytest

from pockc.errors import InternalError
from pockc.ir import DType, Gradient, InputRole, OptState, Param, Scalar, StateUpdate, Update
from pockc.passes import Pass, run_passes
from pockc.passes.accumulate_gradients import AccumulateGradients, apply_update_graph
from pockc.passes.attach_optimizer import Attachment, AttachOptimizer
from pockc.passes.clip_gradients import ClipGradients
from pockc.passes.prune_backward import PruneBackward
from pockc.passes.share_common import ShareCommon
from pockc.passes.slice_channels import SliceChannels
from tests.passes.nets import MLP, sgd
from tests.support import Golden, close, graph, ops_of, random_inputs, results
from tests.tolerances import EXACT, TABLE

Given = dict[InputRole, np.ndarray]
BOTH = (Attachment("fc1.weight", sgd(6, 8)), Attachment("fc2.weight", sgd(8, 4), 10.0))
PRUNE = PruneBackward(frozenset({"fc1.weight", "fc2.weight"}))
CLOSE = TABLE[DType.F32, "rewrite"]


def expected(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, lr: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    new = m * np.float32(0.9) + g
    return p - new / np.float32(1 - 0.9**3) * np.float32(lr), new


def test_gradients_become_updates(golden: Golden) -> None:
    before = run_passes(graph(MLP), [PRUNE])
    after = run_passes(before, [AttachOptimizer(BOTH), ShareCommon()])
    golden.check(str(after))
    inputs = random_inputs(after)
    gradients = results(before, inputs)
    found = results(after, inputs)
    assert not any(isinstance(r, Gradient) for r in found)
    for name, lr in (("fc1.weight", 0.1), ("fc2.weight", 1.0)):
        state = OptState("momentum", name)
        p, m = expected(inputs[Param(name)], gradients[Gradient(name)], inputs[state], lr)
        close(found[Update(name)], p, CLOSE)
        close(found[StateUpdate("momentum", name)], m, CLOSE)


def test_bias_corrections_are_computed_once() -> None:
    after = run_passes(graph(MLP), [PRUNE, AttachOptimizer(BOTH), ShareCommon()])
    assert ops_of(after).count("pow") == 1
    assert [i.name for i in after.inputs if isinstance(i.role, Scalar)] == ["lr", "step"]


def test_unselected_channels_keep_every_bit_and_have_no_state() -> None:
    selection = (1, (1, 2, 6))
    part = Attachment("fc1.weight", sgd(6, 3), 1.0, selection)
    passes: list[Pass] = [
        PruneBackward(frozenset({"fc1.weight"})),
        SliceChannels((("fc1.weight", selection),)),
        AttachOptimizer((part,)),
    ]
    after = run_passes(graph(MLP), passes)
    inputs = random_inputs(after)
    old, new = inputs[Param("fc1.weight")], results(after, inputs)[Update("fc1.weight")]
    rest = [i for i in range(8) if i not in selection[1]]
    assert new[:, rest].tobytes() == old[:, rest].tobytes()
    assert (new[:, list(selection[1])] != old[:, list(selection[1])]).all()
    assert after.type_of("m").shape == (6, 3)


def test_a_gradient_without_a_recipe_is_a_defect() -> None:
    with pytest.raises(InternalError, match=r"the gradient of 'fc2.weight' has no recipe"):
        run_passes(graph(MLP), [PRUNE, AttachOptimizer(BOTH[:1])])


def test_clipping_is_that_of_torch(golden: Golden) -> None:
    torch = pytest.importorskip("torch")
    before = run_passes(graph(MLP), [PRUNE])
    after = run_passes(before, [ClipGradients(0.5)])
    golden.check(str(after))
    inputs = random_inputs(before)
    given, found = results(before, inputs), results(after, inputs)
    names = [Gradient("fc1.weight"), Gradient("fc2.weight")]
    tensors = [torch.nn.Parameter(torch.zeros(given[n].shape)) for n in names]
    for tensor, name in zip(tensors, names, strict=True):
        tensor.grad = torch.tensor(given[name])
    torch.nn.utils.clip_grad_norm_(tensors, 0.5)
    for tensor, name in zip(tensors, names, strict=True):
        close(found[name], tensor.grad.numpy(), CLOSE)
        with pytest.raises(AssertionError):
            close(given[name], tensor.grad.numpy(), CLOSE)


def test_short_gradients_are_not_clipped() -> None:
    before = run_passes(graph(MLP), [PRUNE])
    after = run_passes(before, [ClipGradients(1e6)])
    inputs = random_inputs(before)
    given, found = results(before, inputs), results(after, inputs)
    assert all(found[r].tobytes() == given[r].tobytes() for r in given)


def test_two_micro_batches_make_the_update_of_their_mean(golden: Golden) -> None:
    gradients = run_passes(graph(MLP), [PRUNE])
    step = run_passes(gradients, [AccumulateGradients()])
    apply = run_passes(apply_update_graph(gradients, 2), [AttachOptimizer(BOTH)])
    golden.check(str(step) + str(apply))
    first, second = random_inputs(step, 1), random_inputs(step, 2)
    shared: Given = {r: a for r, a in first.items() if isinstance(r, Param)}
    name = "fc1.weight"
    slot, out = OptState("grad_sum", name), StateUpdate("grad_sum", name)
    total = np.zeros((6, 8), np.float32)
    for batch in (first, second):
        total = results(step, {**batch, **shared, slot: total})[out]
    parts = [results(gradients, {**b, **shared})[Gradient(name)] for b in (first, second)]
    mean = (parts[0] + parts[1]) * np.float32(0.5)
    given = {**random_inputs(apply), **shared, slot: total}
    found = results(apply, given)
    p, _ = expected(given[Param(name)], mean, given[OptState("momentum", name)])
    close(found[Update(name)], p, CLOSE)
    close(found[out], np.zeros((6, 8), np.float32), EXACT)
