"""The passes: pure functions from a graph to a graph. `README.md` says how to write one."""

from pockc.passes.base import Pass, known_passes, parse_passes, run_passes

__all__ = ["Pass", "known_passes", "parse_passes", "run_passes"]
