"""The device has numpy and nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.runtime.toy import run_python

LOADED = "import sys; print(sorted({m.partition('.')[0] for m in sys.modules}))"
HEAVY = (
    "torch", "tvm", "onnx", "safetensors", "pydantic", "typer", "rich", "yaml", "ziglang",
)  # fmt: skip


def test_the_runtime_imports_numpy_only() -> None:
    loaded = run_python(f"import pockc.runtime\n{LOADED}")
    assert "numpy" in loaded
    assert not [name for name in HEAVY if f"'{name}'" in loaded]


def test_running_an_artifact_imports_nothing_more(toy_path: Path) -> None:
    loaded = run_python(
        "import numpy, pockc\n"
        f"a = pockc.load({str(toy_path)!r})\n"
        "x, t = numpy.ones((4, 3), 'f'), numpy.zeros(4, int)\n"
        "a.train((x, t), epochs=2); a.evaluate((x, t)); a.predict(x); a.state_dict()\n"
        f"a.save({str(toy_path)!r})\n"
        "import sys\n"
        "ours = {m.split('.')[1] for m in sys.modules if m.startswith('pockc.')}\n"
        "assert ours == {'runtime', 'errors'}, ours\n"
        f"{LOADED}"
    )
    assert not [name for name in HEAVY if f"'{name}'" in loaded]


def test_a_heavy_import_would_be_noticed() -> None:
    loaded = run_python(f"import safetensors\n{LOADED}")
    assert "'safetensors'" in loaded
