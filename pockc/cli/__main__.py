"""`python -m pockc.cli`."""

from __future__ import annotations

from pockc.cli import main

main()
