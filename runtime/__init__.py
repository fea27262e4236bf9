"""Runs artifacts: needs numpy and nothing else."""

from __future__ import annotations
