"""What is measured: nets by name with their sizes, and the sets of cases. Needs no framework.

A case is a net at one size, a batch, and how much of the net is trained. Statistics of batch
normalisations are frozen in all of them; the optimizer is plain SGD, in f32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

LEARNING_RATE = 1e-3
MODES = ("full", "sparse")
_LENGTHS = ("resolution", "sequence")


@dataclass(frozen=True)
class Workload:
    """A net at one size.

    Attributes:
        net: Name of the net, a key of `tests.bench.nets.NETS`.
        sizes: Its sizes; `resolution` for images, `sequence` for tokens, others are the net's.
        batch: Rows of a step.
        title: For people.
    """

    net: str
    sizes: Mapping[str, int]
    batch: int
    title: str

    @property
    def takes_images(self) -> bool:
        """Whether an input is an image rather than tokens."""
        return "resolution" in self.sizes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a batch: (N, 3, H, W) or (N, T)."""
        if self.takes_images:
            side = self.sizes["resolution"]
            return (self.batch, 3, side, side)
        return (self.batch, self.sizes["sequence"])

    def resized(self, **sizes: int) -> Workload:
        """Return it with another batch or other sizes."""
        batch = sizes.pop("batch", self.batch)
        return dataclasses.replace(self, batch=batch, sizes={**self.sizes, **sizes})


Stage = tuple[int, int, int, int, int]
"""Expansion, channels, blocks, stride of the first block, filter size."""


@dataclass(frozen=True)
class Inverted:
    """A net of inverted residuals: channels of its stem and of its head, 0 for no head."""

    stem: int
    head: int
    stages: tuple[Stage, ...]


INVERTED: dict[str, Inverted] = {
    "mobilenet_v2": Inverted(32, 1280, (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3),
        (6, 96, 3, 1, 3), (6, 160, 3, 2, 3), (6, 320, 1, 1, 3),
    )),
    # EfficientNet-Lite0 (Tan and Le, 2019; without squeeze and excitation).
    "efficientnet_lite0": Inverted(32, 1280, (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    )),
    "tiny": Inverted(16, 0, (
        (1, 8, 1, 1, 3), (4, 16, 2, 2, 7), (4, 24, 3, 2, 5), (4, 40, 3, 2, 5),
        (4, 48, 3, 1, 3), (4, 96, 3, 2, 5), (4, 160, 1, 1, 3),
    )),
}  # fmt: skip
RESIDUAL: dict[str, tuple[int, ...]] = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
"""Blocks of each stage."""

_IMAGE = {"resolution": 224, "classes": 1000}
_BERT = {
    "sequence": 128, "layers": 12, "hidden": 768, "heads": 12, "inner": 3072,
    "vocabulary": 30522, "classes": 2,
}  # fmt: skip
_MINILM = {**_BERT, "sequence": 64, "layers": 6, "hidden": 384, "inner": 1536, "classes": 8}
_LLAMA = {
    "sequence": 128, "layers": 8, "hidden": 512, "heads": 8, "inner": 1408, "vocabulary": 8000,
}  # fmt: skip

WORKLOADS: dict[str, Workload] = {
    "W1": Workload("mobilenet_v2", _IMAGE, 8, "MobileNetV2"),
    "W3": Workload("bert", _BERT, 8, "BERT-base"),
    "W5": Workload("tiny", {"resolution": 128, "classes": 10}, 1, "small CNN"),
    "resnet18": Workload("resnet18", _IMAGE, 4, "ResNet-18"),
    "resnet50": Workload("resnet50", _IMAGE, 4, "ResNet-50"),
    "distilbert": Workload("distilbert", {**_BERT, "layers": 6}, 8, "DistilBERT"),
    "llama": Workload("llama", _LLAMA, 4, "Llama-like decoder"),
    "minilm": Workload("distilbert", _MINILM, 16, "MiniLM-L6"),
    "efficientnet": Workload(
        "efficientnet_lite0", {"resolution": 128, "classes": 10}, 8, "EfficientNet-Lite0"
    ),
}


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        workload: A key of `WORKLOADS`, which `changes` refine.
        mode: `full` trains everything, `sparse` is PockEngine's scheme.
        changes: Sizes that differ from the workload's; `batch` too.
    """

    workload: str
    mode: str = "full"
    changes: Mapping[str, int] = field(default_factory=dict)

    @property
    def spec(self) -> Workload:
        """The net with its sizes."""
        return WORKLOADS[self.workload].resized(**self.changes)

    @property
    def key(self) -> str:
        """A name for files, as `W1-batch1-sparse`."""
        spec = self.spec
        sizes = [f"{k}{v}" for k, v in self.changes.items() if k != "batch"]
        return "-".join([self.workload, f"batch{spec.batch}", *sizes, self.mode])

    @property
    def title(self) -> str:
        """A name for people, as `MobileNetV2 224, batch 8`: resolution or sequence first."""
        spec = self.spec
        sizes = [f", {k} {v}" for k, v in self.changes.items() if k not in ("batch", *_LENGTHS)]
        return f"{spec.title} {spec.input_shape[-1]}, batch {spec.batch}" + "".join(sizes)


def _both(workload: str, **changes: int) -> list[Case]:
    return [Case(workload, mode, changes) for mode in MODES]


_SMALL_IMAGES = Case("W1", "full", {"batch": 4})
_SHALLOW = Case("W3", "full", {"batch": 4, "layers": 3})

DOUBLINGS: tuple[tuple[str, Case, Case], ...] = (
    ("batch", Case("W1", "full", {"batch": 2}), _SMALL_IMAGES),
    ("batch", _SMALL_IMAGES, Case("W1", "full", {"batch": 8})),
    ("resolution", Case("W1", "full", {"batch": 4, "resolution": 112}), _SMALL_IMAGES),
    ("resolution", _SMALL_IMAGES, Case("W1", "full", {"batch": 4, "resolution": 448})),
    ("batch", _SHALLOW, Case("W3", "full", {"batch": 8, "layers": 3})),
    ("layers", _SHALLOW, Case("W3", "full", {"batch": 4, "layers": 6})),
    ("sequence", _SHALLOW, Case("W3", "full", {"batch": 4, "layers": 3, "sequence": 256})),
)
"""What is doubled, and the case before and after."""

SETS: dict[str, list[Case]] = {
    "main": [*_both("W1"), *_both("W1", batch=1), *_both("W3"), *_both("W5")],
    "families": [
        *_both("resnet18"),
        *_both("resnet50"),
        *_both("distilbert"),
        *_both("llama"),
        *_both("W1", batch=4, resolution=160),
        *_both("W5", batch=8),
        *_both("W3", batch=1, sequence=50, layers=4),
    ],
    "scaling": list({c.key: c for _, *pair in DOUBLINGS for c in pair}.values()),
}
