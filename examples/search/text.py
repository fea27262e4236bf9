"""MiniLM-L6 of the text example at 8 texts of 32 tokens a step: a step of 25 to 80 ms."""

from __future__ import annotations

import torch
from neighbours import load

BATCH, LENGTH = 8, 32
minilm = load("text", "model")
make_model = minilm.make_model
class_names = minilm.class_names
example_inputs = (
    torch.full((BATCH, LENGTH), 101),
    torch.ones(BATCH, LENGTH, dtype=torch.int64),
)
loss = "cross_entropy"
