"""A budget is met by computing blocks again, before a batch is divided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pockc import driver, runtime
from pockc.errors import UserError
from pockc.frontend.loading import UserModel
from pockc.ir import DType
from pockc.scheme import Config
from pockc.scheme.blocks import structure_of
from pockc.search.cost import cost_of
from pockc.search.fit import description, fit
from pockc.search.kernel_times import KernelTimes
from pockc.search.session import Session
from tests import nets
from tests.search.sessions import session_of as searched
from tests.support import close
from tests.tolerances import tolerance

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]
OPTIONS = driver.Options(threads=1)
ADAMW = {"name": "adamw", "lr": 1e-3}


def session_of(name: str) -> tuple[UserModel, Session]:
    *inputs, target = nets.batches(name, 8, 1)[0]
    user = UserModel(nets.make(name), tuple(inputs), target_example=target)
    base = driver.read_config({"optimizer": ADAMW}, {})
    return user, Session.of(driver.capture_model(user, base, OPTIONS), base, OPTIONS)


def trained(
    session: Session, config: Config, name: str, path: Path
) -> tuple[list[float], dict[str, np.ndarray], int]:
    """Return losses and tensors of three steps, and the bytes of the step's arena."""
    driver.build_captured(session.captured, config, path, OPTIONS)
    batch = [t.numpy() for t in nets.batches(name, 8, 1)[0]]
    with runtime.load(path, 1) as artifact:
        losses = [artifact.train_step(*batch) for _ in range(3)]
        return losses, artifact.state_dict(), artifact.memory.arena_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pattern"),
    [("mobilenet", "blocks.*"), ("bert", "layers.*"), ("resnet", "blocks.1")],
)
def test_blocks_computed_again_take_less_memory_and_make_the_same_update(
    name: str, pattern: str, tmp_path: Path
) -> None:
    _, session = session_of(name)
    again = driver.read_config({"optimizer": ADAMW, "recompute": [pattern]}, {})
    losses, state, arena = trained(session, session.base, name, tmp_path / "whole.pock")
    losses_2, state_2, arena_2 = trained(session, again, name, tmp_path / "again.pock")
    assert arena_2 < arena * (0.7 if pattern.endswith("*") else 1)
    np.testing.assert_array_equal(losses, losses_2)
    for tensor, value in state.items():
        np.testing.assert_array_equal(value, state_2[tensor], err_msg=tensor)


def test_a_budget_is_met_by_repeated_blocks_and_by_no_more_than_needed() -> None:
    user, session = session_of("mobilenet")
    whole = cost_of(
        driver.plan_captured(session.captured, session.base, OPTIONS), session.times
    )
    wanted = int(whole.memory_bytes * 0.8)
    found = fit(
        lambda c: driver.capture_model(user, c, OPTIONS),
        session.base,
        OPTIONS,
        session.times,
        wanted,
    )
    blocks = structure_of(session.captured.parameters, session.captured.modules).block_names
    assert found.config.accumulate == 1
    assert 0 < len(found.config.recompute) < len(blocks)
    assert found.cost.memory_bytes <= wanted
    assert found.tried[0] == (session.base, whole)
    assert "recompute" in description(found.config)
    for block in found.config.recompute:
        rest = tuple(b for b in found.config.recompute if b != block)
        fewer = found.config.model_copy(update={"recompute": rest})
        planned = driver.plan_captured(session.captured, fewer, OPTIONS)
        assert cost_of(planned, session.times).memory_bytes > wanted


# Of what the arena takes, what is left: enough for blocks again, for parts, or for both.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "share", "again", "parts"),
    [
        ("mobilenet", 0.75, True, False),
        ("resnet", 0.75, False, True),
        ("mobilenet", 0.5, True, True),
    ],
)
def test_a_fitted_step_gives_what_the_whole_one_gives(
    name: str, share: float, again: bool, parts: bool, tmp_path: Path
) -> None:
    # Adam makes a whole step of a gradient that is zero but for rounding.
    user, session = searched(name, 8, {"optimizer": {"name": "sgd", "lr": 0.05}})
    plan = driver.plan_captured(session.captured, session.base, OPTIONS)
    whole = cost_of(plan, session.times)
    budget = whole.memory_bytes - int((1 - share) * whole.arena_bytes)
    found = fit(
        lambda c: driver.capture_model(user, c, OPTIONS),
        session.base,
        OPTIONS,
        session.times,
        budget,
    )
    assert found.cost.memory_bytes <= budget
    assert (bool(found.config.recompute), found.config.accumulate > 1) == (again, parts)
    batches = [[t.numpy() for t in b] for b in nets.batches(name, 8, 3)]
    results = []
    for config in (session.base, found.config):
        path = tmp_path / "fitted.pock"
        driver.build(user, config, path, OPTIONS)
        with runtime.load(path, 1) as artifact:
            losses = [artifact.train_step(*b) for b in batches]
            results.append((np.asarray(losses, np.float32), artifact.state_dict()))
    allowed = tolerance(DType.F32, "training")
    close(results[1][0], results[0][0], allowed)
    for tensor, value in results[0][1].items():
        close(results[1][1][tensor], value, allowed)


def test_a_budget_that_nothing_meets_names_the_least_that_there_is() -> None:
    user, session = session_of("resnet")
    times = KernelTimes(session.times.target, 1)
    with pytest.raises(UserError, match=r"\[budget\] nothing fits 1000 B: the least is"):
        fit(
            lambda c: driver.capture_model(user, c, OPTIONS),
            session.base,
            OPTIONS,
            times,
            1000,
        )


def test_a_pattern_without_a_module_is_told_with_the_choices() -> None:
    _, session = session_of("resnet")
    config = driver.read_config({"recompute": ["blocks.9"]}, {})
    with pytest.raises(
        UserError, match=r"(?s)no module matches 'blocks.9'.*choose from: blocks"
    ):
        driver.plan_captured(session.captured, config, OPTIONS)


def test_other_runtimes_refuse_to_compute_blocks_again() -> None:
    _, session = session_of("resnet")
    config = driver.read_config({"recompute": ["blocks.1"]}, {})
    options = driver.Options(backend="onnx", threads=1)
    with pytest.raises(UserError, match=r"\[recompute\] recompute needs kernels of our own"):
        driver.build_captured(session.captured, config, Path("unused.pock"), options)
