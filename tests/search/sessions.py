"""Sessions over the small nets."""

from __future__ import annotations

from collections.abc import Mapping

from pockc import driver
from pockc.frontend.loading import UserModel
from pockc.search.session import Session
from tests import nets

OPTIONS = driver.Options(threads=1)


def session_of(
    name: str, rows: int = 4, how: Mapping[str, object] | None = None
) -> tuple[UserModel, Session]:
    """Return a net with one batch, and the search for its schemes.

    Args:
        name: The net.
        rows: Of the batch.
        how: What the configuration says besides what is trained.
    """
    *inputs, target = nets.batches(name, rows, 1)[0]
    user = UserModel(nets.make(name), tuple(inputs), target_example=target)
    config = {"optimizer": {"name": "adamw", "lr": 1e-3}, **(how or {})}
    base = driver.read_config(config, {})
    return user, Session.of(driver.capture_model(user, base, OPTIONS), base, OPTIONS)
