"""Another machine, over SSH: artifacts go there, runs happen there, results come back.

The machine needs a shell and the usual small programs, as a bare board has them: no Python.
"""

from __future__ import annotations

from pockc.remote.fetching import bring_back
from pockc.remote.place import Place, parse_place
from pockc.remote.sending import Deployed, deploy, send_files
from pockc.remote.ssh import Connection, SshOptions, connect

__all__ = [
    "Connection",
    "Deployed",
    "Place",
    "SshOptions",
    "bring_back",
    "connect",
    "deploy",
    "parse_place",
    "send_files",
]
