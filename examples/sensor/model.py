"""A small 1-D convolutional network for a watch's motion sensors: plain PyTorch.

Input: 6 channels (3 of an accelerometer, 3 of a gyroscope), 100 readings, 10 per second.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS, READINGS, BATCH = 6, 100, 8


def block(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    """Return convolution, group norm and ReLU; the length is halved."""
    return nn.Sequential(
        nn.Conv1d(channels_in, channels_out, kernel, stride=2, padding=kernel // 2),
        nn.GroupNorm(4, channels_out),
        nn.ReLU(),
    )


class MotionNet(nn.Module):
    """Three convolution blocks, the mean over time and a linear classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            block(CHANNELS, 32, 7),
            block(32, 64, 5),
            block(64, 64, 3),
        )
        self.classifier = nn.Linear(64, classes)

    def forward(self, readings: Tensor) -> Tensor:
        """Return logits (N, classes) for readings f32 (N, CHANNELS, READINGS)."""
        return self.classifier(self.features(readings).mean(2))


def make_model() -> nn.Module:
    """Return the network with the same random weights at every call."""
    torch.manual_seed(0)
    return MotionNet(len(class_names))


class_names = ("standing", "running", "walking", "badminton")
example_inputs = (torch.zeros(BATCH, CHANNELS, READINGS),)
loss = "cross_entropy"
