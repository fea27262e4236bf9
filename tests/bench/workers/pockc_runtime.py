"""pockc, as on a device: the artifact and the runtime, with NumPy only; or ONNX Runtime too."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.bench.workers.meter import Meter


def main() -> None:
    """Load the artifact that the job names and serve its train step."""
    meter = Meter()
    import pockc

    load = pockc.load
    if (Path(meter.options["artifact"]) / "train_step.onnx").exists():
        # It is imported when an artifact is opened; as of every other peer, memory counts from
        # behind the imports.
        importlib.import_module("onnxruntime")
    meter.imported()
    inputs, labels = meter.batch()
    artifact = load(meter.options["artifact"], threads=meter.threads)
    planned = artifact.memory.total_bytes
    version = artifact.manifest.producer.rpartition(" ")[2]
    meter.serve(lambda: artifact.train_step(inputs, labels), version, planned_bytes=planned)


if __name__ == "__main__":
    main()
