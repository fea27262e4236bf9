"""Writes a tuned artifact as an ONNX model for inference, and compares it with `predict`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pockc.errors import Problem, UserError
from pockc.runtime import load
from pockc.runtime.inputs import drawn
from pockc.runtime.manifest import Manifest

SPLIT_BYTES = 1 << 30
"""Constants of more bytes go to a file beside the model: protobuf holds twice that at most."""

_RTOL, _ATOL = 1e-3, 1e-4
"""How far predictions may be apart, the latter as a part of the largest."""


def write_model(
    path: Path, folder: Path, values: Mapping[str, np.ndarray], split_bytes: int = SPLIT_BYTES
) -> list[Path]:
    """Write the model of an artifact with these weights; return its files, the model last."""
    try:
        from pockc.backends.onnx import inference
    except ImportError as error:
        what = f"an ONNX model needs a package that is missing: {error.name}"
        raise UserError(Problem("no-onnx", what, fix="pip install 'pockc[onnx]'")) from error
    return inference.save(inference.inference_model(folder, values), path, split_bytes)


def compared(path: Path, folder: Path, manifest: Manifest) -> str:
    """Run a model and the artifact on the same random batch; say how far they are apart.

    Raises:
        UserError: [export-mismatch] They do not predict the same.
    """
    specs = manifest.entries["predict"].inputs
    rng = np.random.default_rng(0)
    batch = [drawn(s, rng) for s in specs]
    try:
        import onnxruntime

        with load(folder) as artifact:
            expected = artifact.run("predict", *batch)
    except ImportError:
        return "not compared with predict: onnxruntime is not installed"
    except UserError as error:
        if error.problems[0].slug != "artifact-target":
            raise
        return "not compared with predict: the artifact is for another machine"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {s.name: b for s, b in zip(specs, batch, strict=True)})
    worst = 0.0
    for a, b in zip(found, expected.values(), strict=True):
        error_, scale = np.abs(a - b), float(np.abs(b).max(initial=0.0))
        worst = max(worst, float(error_.max(initial=0.0)))
        if not (error_ <= _ATOL * scale + _RTOL * np.abs(b)).all():
            what = f"the model predicts otherwise than the artifact: {worst:.3g} apart"
            fix = "please report this with the model"
            raise UserError(Problem("export-mismatch", what, fix=fix))
    return f"checked against predict (largest difference {worst:.2g})"
