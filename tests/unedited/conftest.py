"""Lets timm and transformers be imported beside a PyTorch for CPUs."""

from __future__ import annotations

from tests.zoo import stand_in_for_torchvision

stand_in_for_torchvision()
