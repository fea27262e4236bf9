"""Trains an ONNX artifact on an execution provider; runs in an environment that has it.

Takes the artifact, an .npz of batches (`<step>.<input>`) and the provider; writes losses, the
state after them, predictions, and where the state lies, as .npz.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pockc import runtime
from pockc.runtime.onnx_program import OnnxProgram


def placed(artifact: runtime.Artifact) -> tuple[set[str], list[int]]:
    """Return the devices of the state's buffers, and their addresses."""
    program = artifact._library
    assert isinstance(program, OnnxProgram)
    buffers = [b for s in program._slots.values() for b in s.buffers]
    return {b.value.device_name() for b in buffers}, [b.value.data_ptr() for b in buffers]


def main(folder: Path, data: Path, provider: str, out: Path) -> None:
    stored = np.load(data)
    steps = 1 + max(int(n.partition(".")[0]) for n in stored.files)
    batches = [
        [stored[n] for n in sorted(stored.files) if n.startswith(f"{s}.")] for s in range(steps)
    ]
    with runtime.load(folder, providers=[provider]) as artifact:
        losses = [artifact.train_step(*b) for b in batches[:3]]
        devices, addresses = placed(artifact)
        losses += [artifact.train_step(*b) for b in batches[3:]]
        stayed = placed(artifact) == (devices, addresses)
        artifact.save_checkpoint(out.with_suffix(".safetensors"))
        predictions = artifact.predict(*batches[0][:-1])
        state = {f"state.{n}": a for n, a in artifact.state_dict().items()}
    with runtime.load(folder, providers=[provider]) as artifact:
        artifact.load_state(out.with_suffix(".safetensors"))
        np.testing.assert_allclose(
            artifact.predict(*batches[0][:-1]), predictions, rtol=1e-5, atol=1e-6
        )
    np.savez(
        out,
        losses=losses,
        predictions=predictions,
        devices=sorted(devices),
        stayed=stayed,
        **state,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
