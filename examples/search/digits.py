"""EfficientNet-Lite0 of the image example for ten digits, 8 pictures a step."""

from __future__ import annotations

import torch
from neighbours import load

BATCH = 8
lite0 = load("image", "model")
make_model = lite0.make_model
class_names = tuple("0123456789")
example_inputs = (torch.zeros(BATCH, 1, lite0.PIXELS, lite0.PIXELS),)
loss = "cross_entropy"
