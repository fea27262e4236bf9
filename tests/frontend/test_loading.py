"""Every way of naming a model, and what is said when it is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pockc.frontend.capture import capture
from pockc.frontend.loading import load_model
from pockc.ir import BufferUpdate, Scalar
from tests.frontend.helpers import agree, predictions, problem_text, run

PLAIN = """
import torch
from sizes import WIDTH

model = torch.nn.Linear(WIDTH, 2)
example_inputs = (torch.randn(3, WIDTH),)
loss = {"name": "cross_entropy", "label_smoothing": 0.1}
class_names = ["no", "yes"]
"""
FACTORY = """
import torch
from torch import nn

def make_model():
    return nn.Linear(4, 2)

def wide(width=8):
    return nn.Linear(4, width), torch.randn(5, 4)

def example_inputs():
    return (torch.randn(3, 4),)

def loss(outputs, target):
    return (outputs - target).abs().mean()

def example_target():
    return torch.zeros(3, 2)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sizes.py").write_text("WIDTH = 4\n")
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "factory.py").write_text(FACTORY)
    return tmp_path


def test_a_file_that_defines_a_model(folder: Path) -> None:
    found = load_model(folder / "plain.py")
    assert isinstance(found.model, nn.Linear)
    assert [tuple(t.shape) for t in found.example_inputs] == [(3, 4)]
    assert found.loss == {"name": "cross_entropy", "label_smoothing": 0.1}
    assert found.class_names == ("no", "yes")
    assert found.name == "plain"
    assert str(folder) not in sys.path


def test_a_file_that_defines_functions(folder: Path) -> None:
    found = load_model(str(folder / "factory.py"))
    assert callable(found.loss)
    captured = capture(
        found.model, found.example_inputs, found.loss, target_example=found.target_example
    )
    assert captured.targets[0].shape == (3, 2)


def test_a_factory_in_a_file_may_give_inputs(folder: Path) -> None:
    found = load_model(f"{folder / 'factory.py'}:wide")
    assert isinstance(found.model, nn.Linear)
    assert found.model.out_features == 8
    assert [tuple(t.shape) for t in found.example_inputs] == [(5, 4)]


def test_a_factory_in_a_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mypackage").mkdir()
    (folder / "mypackage" / "__init__.py").write_text("")
    (folder / "mypackage" / "models.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(folder))
    found = load_model("mypackage.models:make_model")
    assert isinstance(found.model, nn.Linear)
    assert found.name == "make_model"


def saved(folder: Path, model: nn.Module, x: torch.Tensor, **options: object) -> Path:
    path = folder / "program.pt2"
    torch.export.save(torch.export.export(model, (x,), **options), path)
    return path


@pytest.mark.filterwarnings("ignore")
def test_a_saved_program(folder: Path) -> None:
    x = torch.randn(3, 4)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).eval()
    found = load_model(saved(folder, model, x))
    captured = capture(found.model, found.example_inputs)
    assert list(captured.parameters) == list(dict(model.named_parameters()))
    assert captured.parameters["0.bias"].kind == "bias"
    (shown,) = predictions(run(captured.predict, captured, (x,)))
    torch.testing.assert_close(torch.tensor(shown), model(x))


@pytest.mark.filterwarnings("ignore")
def test_a_program_saved_in_training_is_evaluated_without_dropout(folder: Path) -> None:
    x = torch.randn(3, 4)
    layers = (nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 2))
    model = nn.Sequential(*layers).double().train()
    found = load_model(saved(folder, model, x.double()))
    captured = capture(found.model, found.example_inputs)
    assert captured.train.input_of(Scalar("seed")) is not None
    assert captured.evaluate.input_of(Scalar("seed")) is None
    assert BufferUpdate("1.running_mean") not in {o.role for o in captured.train.outputs}
    (shown,) = predictions(run(captured.predict, captured, (x.double(),)))
    agree(shown, model.eval()(x.double()))
    updated = capture(found.model, found.example_inputs, batch_norm="update")
    assert BufferUpdate("1.running_mean") in {o.role for o in updated.train.outputs}


@pytest.mark.filterwarnings("ignore")
def test_a_program_saved_with_a_dynamic_batch_takes_that_of_the_example(folder: Path) -> None:
    shapes = ({0: torch.export.Dim("batch")},)
    found = load_model(saved(folder, nn.Linear(4, 2), torch.randn(3, 4), dynamic_shapes=shapes))
    assert capture(found.model, found.example_inputs).inputs[0].shape == (3, 4)


FORMS = "give model.py, model.py:factory, package.module:factory, program.pt2 or model.onnx"


@pytest.mark.parametrize(
    ("files", "spec", "expected"),
    [
        ({}, "none.py", f"[model-file] there is no file none.py\n    fix  {FORMS}"),
        ({}, "none.pt2", f"[model-file] there is no file none.pt2\n    fix  {FORMS}"),
        ({}, "model", f"[model-file] 'model' names no model\n    fix  {FORMS}"),
        (
            {},
            "no_such_package.models:make",
            f"[model-file] there is no module 'no_such_package.models'\n    fix  {FORMS}",
        ),
        (
            {"m.py": "import torch\nnet = torch.nn.Linear(1, 1)\n"},
            "m.py",
            "[model-missing] m.py does not define 'model': a torch.nn.Module, or make_model() "
            "for one\n    fix  it defines: net",
        ),
        (
            {"m.py": "import torch\nmodel = torch.nn.Linear(1, 1)\n"},
            "m.py",
            "[model-missing] m.py does not define 'example_inputs': one batch, as a tuple of "
            "tensors\n    fix  it defines: model",
        ),
        (
            {"m.py": "def build():\n    pass\n"},
            "m.py:make",
            "[model-missing] m.py does not define 'make': a function that returns the module\n"
            "    fix  it defines: build",
        ),
        (
            {"m.py": "model = 3\nexample_inputs = ()\n"},
            "m.py",
            "[model-type] m.py: model is int, expected a torch.nn.Module",
        ),
        (
            {"m.py": "import torch\nmodel = torch.nn.Linear(1, 1)\nexample_inputs = 3\n"},
            "m.py",
            "[model-type] m.py: example_inputs is int, expected a tuple of tensors",
        ),
        (
            {
                "m.py": "import torch\nmodel = torch.nn.Linear(1, 1)\n"
                "example_inputs = torch.zeros(1, 1)\nclass_names = 'ab'\n"
            },
            "m.py",
            "[model-type] m.py: class_names must be a list of texts, found 'ab'",
        ),
        (
            {"m.py": "import nothing_of_this_name\n"},
            "m.py",
            "[model-import] running m.py raised ModuleNotFoundError: No module named "
            "'nothing_of_this_name'\n"
            "    from m.py:1 in <module>: import nothing_of_this_name\n"
            "    fix  make it run by itself in Python first",
        ),
        (
            {"m.py": "def make_model():\n    return [][1]\nexample_inputs = ()\n"},
            "m.py",
            "[model-import] calling make_model() raised IndexError: list index out of range\n"
            "    from m.py:2 in make_model: return [][1]\n"
            "    fix  make it run by itself in Python first",
        ),
    ],
)
def test_a_wrong_name_says_what_is_expected(
    files: dict[str, str],
    spec: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert problem_text(lambda: load_model(spec)) == expected


def test_a_damaged_program(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    path.write_bytes(b"no archive")
    what, fix = problem_text(lambda: load_model(path)).splitlines()
    assert what.startswith(
        "[model-file] program.pt2 is no program that torch.export.save wrote: "
    )
    assert fix == (
        "    fix  save it with torch.export.save(torch.export.export(model, inputs), path)"
    )
