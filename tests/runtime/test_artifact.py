"""Train, evaluate, predict, and the weights: the toy classifier against NumPy."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from pockc.errors import InternalError, UserError
from pockc.runtime import Artifact, load
from tests.runtime.toy import K, N, Reference, toy_data, toy_values, write_toy

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def test_steps_follow_the_reference(toy: Artifact) -> None:
    reference = Reference()
    x, target = toy_data(40)
    for i in range(0, 40, N):
        loss = toy.train_step(x[i : i + N], target[i : i + N], lr=0.3)
        expected = reference.train_step(x[i : i + N], target[i : i + N], 0.3)
        assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(toy.state.array("fc.weight"), reference.weight, **TOLERANCE)
    momentum = toy.state.array("optimizer.momentum.fc.weight")
    np.testing.assert_allclose(momentum, reference.momentum, **TOLERANCE)
    assert toy.step == 10


def test_a_wrong_reference_would_be_noticed(toy: Artifact) -> None:
    reference = Reference()
    x, target = toy_data(N)
    toy.train_step(x, target, lr=0.3)
    reference.train_step(x, target, 0.6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(toy.state.array("fc.weight"), reference.weight, **TOLERANCE)


def test_the_compiled_learning_rate_is_used_where_none_is_given(toy: Artifact) -> None:
    reference = Reference()
    x, target = toy_data(N)
    toy.train_step(x, target)
    reference.train_step(x, target, 0.1)
    np.testing.assert_allclose(toy.state.array("fc.weight"), reference.weight, **TOLERANCE)


def test_micro_batches_add_up_to_one_step(tmp_path: Path, libraries: dict[str, Path]) -> None:
    artifact = load(write_toy(tmp_path / "m.pock", libraries["micro"], 2))
    reference = Reference()
    x, target = toy_data(2 * N)
    for _ in range(3):
        loss = artifact.train_step(x, target, lr=0.3)
        assert loss == pytest.approx(reference.train_step(x, target, 0.3), rel=1e-5)
    np.testing.assert_allclose(artifact.state.array("fc.weight"), reference.weight, **TOLERANCE)
    assert artifact.step == 3
    assert not artifact.state.array("optimizer.grad_sum.fc.weight").any()


def test_every_number_of_rows_is_predicted(toy: Artifact) -> None:
    reference = Reference()
    for rows in (1, 3, N, 5, 11):
        x, _ = toy_data(rows)
        found = toy.predict(x)
        assert isinstance(found, np.ndarray)
        assert found.shape == (rows, K)
        np.testing.assert_allclose(found, reference.logits(x), **TOLERANCE)


@pytest.mark.parametrize("rows", [1, 4, 7, 13])
def test_evaluation_counts_every_row_once(toy: Artifact, rows: int) -> None:
    reference = Reference()
    x, target = toy_data(rows, seed=rows)
    found = toy.evaluate((x, target))
    assert found["loss"] == pytest.approx(reference.loss(x, target), rel=1e-5)
    correct = reference.logits(x).argmax(axis=1) == target
    assert found["accuracy"] == pytest.approx(correct.mean())
    assert found["samples"] == rows


def test_batches_and_arrays_evaluate_alike(toy: Artifact) -> None:
    x, target = toy_data(11)
    batches = [(x[:4], target[:4]), (x[4:5], target[4:5]), (x[5:], target[5:])]
    assert toy.evaluate(batches) == pytest.approx(toy.evaluate((x, target)))
    named = {"target": target, "x": x}
    assert toy.evaluate(named) == toy.evaluate((x, target))


def test_ignored_labels_do_not_count(toy: Artifact) -> None:
    x, target = toy_data(7)
    target[[1, 5]] = -100
    found = toy.evaluate((x, target))
    assert found["loss"] == pytest.approx(Reference().loss(x, target), rel=1e-5)
    kept = target >= 0
    correct = Reference().logits(x).argmax(axis=1)[kept] == target[kept]
    assert found["accuracy"] == pytest.approx(correct.mean())


def test_the_state_has_every_tensor_of_the_model(toy: Artifact) -> None:
    state, values = toy.state_dict(), toy_values()
    assert sorted(state) == sorted([*values, "tied.weight"])
    for name, value in values.items():
        np.testing.assert_array_equal(state[name], value)
        assert state[name].dtype == value.dtype
    np.testing.assert_array_equal(state["tied.weight"], values["fc.weight"])
    state["mean"][:] = 9
    np.testing.assert_array_equal(toy.state_dict()["mean"], values["mean"])


def test_a_saved_artifact_goes_on_where_it_was(toy: Artifact, tmp_path: Path) -> None:
    x, target = toy_data(N)
    toy.seed = 77
    for _ in range(3):
        toy.train_step(x, target, lr=0.2)
    toy.save(tmp_path / "saved.pock")
    other = load(tmp_path / "saved.pock")
    assert (other.step, other.seed) == (3, 77)
    for _ in range(2):
        assert toy.train_step(x, target, lr=0.2) == other.train_step(x, target, lr=0.2)
    for name, value in toy.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value)


def test_saving_over_itself_keeps_the_artifact_usable(toy: Artifact, toy_path: Path) -> None:
    x, target = toy_data(N)
    toy.train_step(x, target, lr=0.2)
    toy.save(toy_path)
    toy.train_step(x, target, lr=0.2)
    toy.save(toy_path)
    other = load(toy_path)
    np.testing.assert_array_equal(other.predict(x), toy.predict(x))
    assert sorted(p.name for p in toy_path.parent.iterdir()) == ["toy.pock"]


def test_equal_state_gives_equal_bytes(toy: Artifact, toy_path: Path, tmp_path: Path) -> None:
    toy.save(tmp_path / "again.pock")
    for file in sorted(toy_path.iterdir()):
        assert (tmp_path / "again.pock" / file.name).read_bytes() == file.read_bytes()


def test_the_step_hands_its_seed_to_the_kernels(toy: Artifact) -> None:
    x, target = toy_data(N)
    toy.train_step(x, target)
    assert toy.state.array("last_seed") == toy.step_seed(1)
    toy.train_step(x, target)
    assert toy.state.array("last_seed") == toy.step_seed(2) != toy.step_seed(1)


def test_two_artifacts_in_one_process_do_not_meet(
    toy: Artifact, tmp_path: Path, libraries: dict[str, Path]
) -> None:
    other = load(write_toy(tmp_path / "m.pock", libraries["micro"], 2))
    x, target = toy_data(2 * N)
    before = toy.predict(x)
    other.train_step(x, target)
    np.testing.assert_array_equal(toy.predict(x), before)
    assert toy.batch_rows == N
    assert other.batch_rows == 2 * N


def test_a_replaced_library_is_not_taken_for_the_old_one(
    toy: Artifact, toy_path: Path, libraries: dict[str, Path]
) -> None:
    write_toy(toy_path, libraries["micro"], 2)
    other = load(toy_path)
    x, target = toy_data(2 * N)
    assert np.isfinite(other.train_step(x, target))
    assert np.isfinite(toy.train_step(x[:N], target[:N]))


def test_a_closed_library_is_not_found_again(
    toy_path: Path, tmp_path: Path, libraries: dict[str, Path]
) -> None:
    load(toy_path).close()  # its descriptor's number is used again by the next
    other = load(write_toy(tmp_path / "m.pock", libraries["micro"], 2))
    x, target = toy_data(2 * N)
    assert other.train_step(x, target) == pytest.approx(Reference().loss(x, target), rel=1e-5)


def test_a_closed_artifact_says_so(toy: Artifact, toy_path: Path) -> None:
    with toy:
        pass
    toy.close()
    with pytest.raises(UserError) as caught:
        toy.predict(toy_data(1)[0])
    assert str(caught.value) == (
        f"[closed] the artifact {toy_path} is closed\n    fix  open it again: pockc.load"
    )


def test_an_owned_folder_goes_with_its_artifact(toy_path: Path) -> None:
    artifact = load(toy_path, owns_folder=True)
    assert toy_path.exists()
    del artifact
    gc.collect()
    assert not toy_path.exists()


def test_closing_gives_memory_and_descriptors_back(toy_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        load(toy_path).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_failing_kernel_is_named(tmp_path: Path, libraries: dict[str, Path]) -> None:
    artifact = load(write_toy(tmp_path / "f.pock", libraries["fail"], fail=True))
    with pytest.raises(InternalError) as caught:
        artifact.predict(toy_data(N)[0])
    assert str(caught.value) == (
        "[runtime-status] the runtime reports: a kernel reported an error "
        "(toy_fail for %failing in predict returned 7)"
    )


def test_the_number_of_threads_does_not_change_the_result(toy_path: Path) -> None:
    x, _ = toy_data(N)
    results = []
    for threads in (1, 2, 3):
        artifact = load(toy_path, threads=threads)
        assert artifact.threads == threads
        results.append(artifact.predict(x))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
