"""The same ONNX artifact on other execution providers, each in an environment of its own.

WebGPU is a real GPU provider, with memory of its own; Chromium's software Vulkan stands in for
the GPU. OpenVINO compiles the graph for the processor.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pockc import driver, runtime
from pockc.errors import UserError
from pockc.ir import DType
from pockc.runtime.onnx_providers import CPU, new_session
from tests import nets
from tests.environments import ROOT, environment
from tests.parity.reference import arrays
from tests.parity.test_parity import captured, scheme_of
from tests.programs import need_program
from tests.support import close
from tests.tolerances import tolerance

pytestmark = pytest.mark.needs_torch

OPSET = 21
"""Both packages are older than the stock one."""


def software_vulkan() -> dict[str, str]:
    """Return the variable that names Chromium's Vulkan driver."""
    found = Path(need_program("chromium")).resolve()
    folders = (found.parent, Path("/usr/lib/chromium"))
    drivers = [f / "vk_swiftshader_icd.json" for f in folders]
    driver_ = next((d for d in drivers if d.exists()), None)
    if driver_ is None:
        pytest.skip("this Chromium has no software Vulkan")
    return {"VK_ICD_FILENAMES": str(driver_)}


def trained(python: Path, provider: str, folder: Path, data: Path, **variables: str) -> Any:
    script = Path(__file__).with_name("provider_steps.py")
    out = folder.with_suffix(".npz")
    done = subprocess.run(
        [*map(str, (python, script, folder, data, provider, out))],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(out)


def check(provider: str, python: Path, case: tuple[str, str], path: Path, **env: str) -> Any:
    """Train six steps on a provider and on the processor: all values must agree."""
    net, scheme = case
    optimizer = {"name": "adamw", "lr": 1e-3, "eps": 1e-4}
    config = driver.read_config(scheme_of(net, scheme), {"optimizer": optimizer})
    options = driver.Options(backend="onnx", opset=OPSET)
    folder = path / "a.pock"
    driver.build_captured(captured(net, 8), config, folder, options)
    batches = [arrays(b) for b in nets.batches(net, 8, 6)]
    given = {f"{s}.{i}": a for s, b in enumerate(batches) for i, a in enumerate(b)}
    np.savez(path / "data.npz", **given)
    found = trained(python, provider, folder, path / "data.npz", **env)
    allowed = tolerance(DType.F32, "training")
    with runtime.load(folder) as artifact:
        close(found["losses"], np.array([artifact.train_step(*b) for b in batches]), allowed)
        close(found["predictions"], artifact.predict(*batches[0][:-1]), allowed)
        for name, value in artifact.state_dict().items():
            close(found[f"state.{name}"], value, allowed)
    assert found["stayed"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [("mobilenet", "full"), ("bert", "full"), ("llama", "full"), ("resnet", "last")]
)
def test_on_a_gpu_the_state_stays_there(case: tuple[str, str], tmp_path: Path) -> None:
    variables = software_vulkan()
    python = environment("onnxruntime-webgpu", "onnxruntime-webgpu==1.27.0")
    found = check("webgpu", python, case, tmp_path, **variables)
    # ONNX Runtime's bindings call the memory of every GPU so.
    assert list(found["devices"]) == ["cuda"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [("mobilenet", "full"), ("bert", "last"), ("llama", "last"), ("resnet", "full")]
)
def test_openvino_trains_as_the_processor_does(case: tuple[str, str], tmp_path: Path) -> None:
    python = environment("onnxruntime-openvino", "onnxruntime-openvino==1.24.1")
    check("openvino", python, case, tmp_path)


def test_a_provider_that_does_not_start_is_an_error() -> None:
    """As where the package is for CUDA and the driver is missing: it goes on without a word."""
    left = SimpleNamespace(get_providers=lambda: [CPU])
    package = SimpleNamespace(
        __version__="1.32",
        SessionOptions=SimpleNamespace,
        InferenceSession=lambda *_, **__: left,
    )
    providers: list[tuple[str, dict[str, Any]]] = [("CUDAExecutionProvider", {}), (CPU, {})]
    with pytest.raises(UserError) as caught:
        new_session(package, Path("a.onnx"), providers)
    assert "[provider-failed] ONNX Runtime 1.32 cannot start its provider cuda" in str(
        caught.value
    )
