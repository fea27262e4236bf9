"""Makes timm importable beside a PyTorch for CPUs.

timm imports torchvision, whose wheels are built against a CUDA build of PyTorch: its compiled
operators do not load, and importing it registers fake versions of operators that are not there.
The models use none of them.
"""

from __future__ import annotations

import sys
from types import ModuleType

import torch

NAME = "torchvision._meta_registrations"

if "torchvision" not in sys.modules:
    sys.modules[NAME] = ModuleType(NAME)
    operators = torch.library.Library("torchvision", "DEF")
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
