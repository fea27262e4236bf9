"""The planned peak is what a process really takes, and near the least that it could take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pockc
from tests import zoo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_torch,
    pytest.mark.needs_tvm,
    pytest.mark.skipif(
        not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"
    ),
]

ROOT = Path(__file__).parents[2]
STEPS = 3
Made = tuple[nn.Module, dict[str, Tensor]]


def mobilenet() -> Made:
    model = zoo._timm().create_model("mobilenetv2_100", num_classes=10)
    return model, {"x": torch.randn(8, 3, 224, 224)}


def bert_base() -> Made:
    library = zoo._transformers()
    ids = torch.randint(30000, (4, 128))
    model = library.BertForSequenceClassification(library.BertConfig(num_labels=8))
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def decoder() -> Made:
    library = zoo._transformers()
    config = library.LlamaConfig(
        vocab_size=2000, hidden_size=256, num_hidden_layers=12, num_attention_heads=8,
        num_key_value_heads=4, intermediate_size=768, use_cache=False,
    )  # fmt: skip
    return library.LlamaForCausalLM(config), {"input_ids": torch.randint(2000, (4, 128))}


def measured(path: Path) -> dict[str, int]:
    command = [
        sys.executable,
        str(Path(__file__).with_name("measure.py")),
        str(path),
        str(STEPS),
    ]
    run = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True
    )
    found: dict[str, int] = json.loads(run.stdout)
    return found


def honest(planned_bytes: int, grown_bytes: int) -> bool:
    """Whether a process took what was planned, within 2 % and 2 MB."""
    return abs(grown_bytes - planned_bytes) <= 0.02 * planned_bytes + 2e6


@pytest.mark.parametrize("make", [mobilenet, bert_base, decoder])
def test_a_process_takes_what_is_planned(make: Callable[[], Made], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = make()
    artifact = pockc.compile(model, inputs, optimizer={"name": "sgd", "lr": 1e-6}, threads=2)
    entry = artifact.manifest.entries["train_step"]
    assert entry.lower_bound_bytes <= entry.arena_bytes <= 1.05 * entry.lower_bound_bytes
    artifact.save(tmp_path / "model.pock")
    artifact.close()
    code = [f for f in (tmp_path / "model.pock").iterdir() if f.suffix != ".safetensors"]
    assert sum(f.stat().st_size for f in code) < 2_000_000  # all but the weights
    del model, artifact
    found = measured(tmp_path / "model.pock")
    assert found["arena"] >= entry.arena_bytes
    assert honest(found["planned"], found["grown"]), found


def test_one_more_buffer_is_noticed() -> None:
    assert honest(100_000_000, 103_900_000)
    assert not honest(100_000_000, 104_100_000)
    assert not honest(100_000_000, 95_000_000)
