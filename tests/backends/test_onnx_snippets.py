"""The snippets of the backend's README take the same steps as pockc."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pockc import driver, runtime
from pockc.frontend.loading import UserModel
from pockc.ir import DType
from pockc.runtime.safetensors import read_all
from tests import nets
from tests.environments import onnxruntime_headers
from tests.support import close
from tests.tolerances import tolerance

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]

README = Path(__file__).parents[2] / "backends" / "onnx" / "README.md"
STEPS = 3
RATE = 1e-3

AROUND = r"""
{includes}
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

static void read_bytes(const std::string& name, void* to, size_t bytes) {{
    std::memset(to, 0, bytes);
    std::ifstream file("values/" + name, std::ios::binary);
    if (file) file.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes));
}}

static void read_state(const std::string& name, Ort::Value& value) {{
    auto count = value.GetTensorTypeAndShapeInfo().GetElementCount();
    read_bytes(name, value.GetTensorMutableData<float>(), count * sizeof(float));
}}

template <typename T>
static Ort::Value given(const char* name, std::vector<int64_t> shape) {{
    Ort::AllocatorWithDefaultOptions allocator;
    auto made = Ort::Value::CreateTensor<T>(allocator, shape.data(), shape.size());
    auto count = made.GetTensorTypeAndShapeInfo().GetElementCount();
    read_bytes(name, made.template GetTensorMutableData<T>(), count * sizeof(T));
    return made;
}}

int main() {{
    const int steps = {steps};
    auto images = given<float>("x", {{{x}}});
    auto labels = given<int64_t>("target", {{{target}}});
    auto lr = given<float>("lr", {{}}), step_tensor = given<float>("step", {{}});
    auto loss = given<float>("loss", {{}});
    {body}
    std::printf("%.9g", *loss.GetTensorMutableData<float>());
    for (size_t i = 0; i < names.size(); ++i) {{
        std::ofstream file("values/new." + names[i], std::ios::binary);
        auto count = old_state[i].GetTensorTypeAndShapeInfo().GetElementCount();
        file.write(reinterpret_cast<const char*>(old_state[i].GetTensorMutableData<float>()),
                   static_cast<std::streamsize>(count * sizeof(float)));
    }}
}}
"""


def snippet(language: str) -> str:
    """Return the README's first snippet in a language."""
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snippets")
    user = UserModel(nets.make("mobilenet"), nets.batches("mobilenet", 8, 1)[0][:-1])
    config = driver.read_config({"preset": "last:1"}, {"optimizer": "adamw"})
    driver.build(user, config, folder / "model.pock", driver.Options(backend="onnx"))
    return folder


def batch() -> tuple[np.ndarray, np.ndarray]:
    x, target = (t.numpy() for t in nets.batches("mobilenet", 8, 1)[0])
    return x, target


@pytest.fixture(scope="module")
def expected(place: Path) -> tuple[list[float], dict[str, np.ndarray]]:
    """Return pockc's losses, and the state behind the last step."""
    with runtime.load(place / "model.pock") as artifact:
        losses = [artifact.train_step(*batch(), lr=RATE) for _ in range(STEPS)]
        names = artifact.manifest.entries["train_step"].writes
        return losses, {n: artifact.state.array(n) for n in names}


def test_the_python_snippet_takes_pockcs_steps(
    place: Path,
    expected: tuple[list[float], dict[str, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = snippet("python")
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 11
    shown: list[tuple[int, float]] = []
    space = {
        "batches": [batch()] * STEPS,
        "print": lambda step, loss: shown.append((step, loss)),
    }
    monkeypatch.chdir(place)
    exec(code, space)
    losses, state = expected
    np.testing.assert_allclose([loss for _, loss in shown], losses, rtol=1e-6)
    found = space["state"]
    assert isinstance(found, dict)
    for name, array in state.items():
        close(found[name], array, tolerance(DType.F32, "rewrite"))


def test_the_cpp_snippet_takes_pockcs_steps(
    place: Path, expected: tuple[list[float], dict[str, np.ndarray]]
) -> None:
    headers = onnxruntime_headers()
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    code, (x, target) = snippet("cpp"), batch()
    lines = code.splitlines()
    text = AROUND.format(
        includes="\n".join(line for line in lines if line.startswith("#")),
        body="\n".join(line for line in lines if not line.startswith("#")),
        steps=STEPS,
        x=", ".join(map(str, x.shape)),
        target=", ".join(map(str, target.shape)),
    )
    (place / "main.cpp").write_text(text)
    values = place / "values"
    values.mkdir()
    given = {"x": x, "target": target, "lr": np.array(RATE, np.float32)}
    for name, array in (given | read_all(place / "model.pock" / "state.safetensors")).items():
        (values / name).write_bytes(array.tobytes())
    compiler = [sys.executable, "-m", "ziglang", "c++", "-std=c++17", "-O1", "-w"]
    # The wheel lacks the name that the library itself gives for loading.
    (place / "libonnxruntime.so.1").symlink_to(library)
    words = ["-I", str(headers), "main.cpp", str(library), "-Wl,-rpath,$ORIGIN"]
    subprocess.run([*compiler, *words, "-o", "main"], check=True, cwd=place, timeout=300)
    ran = subprocess.run(
        ["./main"], check=True, cwd=place, timeout=60, capture_output=True, text=True
    )
    losses, state = expected
    assert float(ran.stdout) == pytest.approx(losses[-1], rel=1e-6)
    assert state
    for name, array in state.items():
        stored = np.fromfile(values / f"new.{name}", np.float32).reshape(array.shape)
        close(stored, array, tolerance(DType.F32, "rewrite"))
