"""Sessions over the small nets."""

from __future__ import annotations

from pockc import driver
from pockc.frontend.loading import UserModel
from pockc.search.session import Session
from tests import nets

OPTIONS = driver.Options(threads=1)


def session_of(name: str, rows: int = 4) -> tuple[UserModel, Session]:
    """Return a net with one batch, and the search for its schemes."""
    *inputs, target = nets.batches(name, rows, 1)[0]
    user = UserModel(nets.make(name), tuple(inputs), target_example=target)
    base = driver.read_config({"optimizer": {"name": "adamw", "lr": 1e-3}}, {})
    return user, Session.of(driver.capture_model(user, base, OPTIONS), base, OPTIONS)
