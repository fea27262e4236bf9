"""Finds the model that a user names: a Python file, a function in a package, a saved program.

A model file is plain PyTorch and need not know about us. It defines

    model            the module, or make_model() that returns it
    example_inputs   one batch: a tuple of tensors, a mapping by name, or a function
    loss             optional: a name, a mapping with a name and options, or a function
    example_target   optional: targets for one batch, for a loss function of your own
    class_names      optional: the names of the classes
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pockc.errors import Problem, UserError
from pockc.frontend import source
from pockc.frontend.losses import LossSpec

_FORMS = "model.py, model.py:factory, package.module:factory, program.pt2 or model.onnx"


@dataclass(frozen=True)
class UserModel:
    """What a user gives to be compiled.

    Attributes:
        model: The module.
        example_inputs: One batch: a tuple of tensors, or a mapping by name.
        loss: None if none is given.
        target_example: Targets for one batch, None if none are given.
        class_names: None if none are given.
        name: A short name, for the artifact.
    """

    model: nn.Module
    example_inputs: tuple[Any, ...] | Mapping[str, Any]
    loss: LossSpec | None = None
    target_example: Tensor | Sequence[Tensor] | None = None
    class_names: tuple[str, ...] | None = None
    name: str = "model"


def load_model(spec: str | Path) -> UserModel:
    """Return the model that a text names.

    Args:
        spec: One of `model.py`, `model.py:factory`, `package.module:factory`, `program.pt2`
            and `model.onnx`. A factory is a function without arguments (or a module) that
            returns a module, or a module and its example inputs.

    Raises:
        UserError: [model-file] there is no such file or package, [model-import] its code
            raises, [model-missing] it does not define what is needed, [model-type] what it
            defines is something else.
    """
    text = str(spec)
    if text.endswith(".pt2"):
        return _saved(Path(text))
    if text.endswith(".onnx"):
        return _onnx(Path(text))
    where, colon, factory = text.rpartition(":")
    if not colon:
        where, factory = text, ""
    if where.endswith(".py"):
        return _from_module(_run_file(Path(where)), factory, Path(where).stem, where)
    if not factory:
        raise UserError(Problem("model-file", f"'{text}' names no model", fix=f"give {_FORMS}"))
    return _from_module(_import(where), factory, factory, where)


def _saved(path: Path) -> UserModel:
    _exists(path)
    try:
        program = torch.export.load(str(path))
    except Exception as e:
        raise UserError(
            Problem(
                "model-file",
                f"{path.name} is no program that torch.export.save wrote: {source.reason(e)}",
                fix="save it with torch.export.save(torch.export.export(model, inputs), path)",
            )
        ) from e
    args, kwargs = program.example_inputs or ((), {})
    if (args and kwargs) or (not args and not kwargs):
        raise UserError(
            Problem(
                "model-missing",
                f"{path.name} was exported with {len(args)} positional and {len(kwargs)} named "
                "example inputs",
                fix="export it with positional inputs alone, or with named ones alone",
            )
        )
    return UserModel(program.module(), tuple(args) or dict(kwargs), name=path.stem)


def _onnx(path: Path) -> UserModel:
    from pockc.frontend.onnx_model import load_onnx

    _exists(path)
    module, inputs = load_onnx(path)
    return UserModel(module, inputs, name=path.stem)


def _exists(path: Path) -> None:
    if not path.is_file():
        raise UserError(Problem("model-file", f"there is no file {path}", fix=f"give {_FORMS}"))


def _run_file(path: Path) -> ModuleType:
    """Run a file as a module; files beside it can be imported by it."""
    _exists(path)
    folder = str(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(f"pockc_user_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(Problem("model-file", f"{path} is no Python file"))
    module = importlib.util.module_from_spec(spec)
    # Classes look their module up there, dataclasses for example.
    sys.modules[spec.name] = module
    sys.path.insert(0, folder)
    try:
        loader = spec.loader
        _guarded(lambda: loader.exec_module(module), f"running {path.name}")
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _import(name: str) -> ModuleType:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UserError(
            Problem("model-file", f"there is no module '{name}'", fix=f"give {_FORMS}")
        )
    module: ModuleType = _guarded(lambda: importlib.import_module(name), f"importing {name}")
    return module


def _guarded(call: Callable[[], Any], doing: str) -> Any:  # noqa: ANN401
    """Call the user's code; what it raises becomes a problem that names the user's line."""
    try:
        return call()
    except UserError:
        raise
    except Exception as e:
        line = source.of_traceback(e)
        raise UserError(
            Problem(
                "model-import",
                f"{doing} raised {source.reason(e)}",
                source=None if line is None else str(line),
                fix="make it run by itself in Python first",
            )
        ) from e


def _from_module(module: ModuleType, factory: str, name: str, where: str) -> UserModel:
    model, inputs = _make(module, factory, where)
    if inputs is None:
        inputs = getattr(module, "example_inputs", None)
    if inputs is None:
        _missing(module, where, "example_inputs", "one batch, as a tuple of tensors")
    return UserModel(
        model,
        _inputs(inputs, where),
        getattr(module, "loss", None),
        _called(getattr(module, "example_target", None), "example_target()"),
        _class_names(getattr(module, "class_names", None), where),
        name,
    )


def _make(module: ModuleType, factory: str, where: str) -> tuple[nn.Module, Any]:
    """Return the module and the example inputs that its factory gave, None if it gave none."""
    found: Any = None
    if factory:
        found = getattr(module, factory, None)
        if found is None:
            _missing(module, where, factory, "a function that returns the module")
    else:
        found = getattr(module, "model", None)
        found = getattr(module, "make_model", None) if found is None else found
        if found is None:
            _missing(module, where, "model", "a torch.nn.Module, or make_model() for one")
    called = factory or "make_model"
    made = _called(found, f"{called}()")
    inputs = None
    if isinstance(made, tuple) and len(made) == 2:
        made, inputs = made
    if not isinstance(made, nn.Module):
        raise UserError(
            Problem(
                "model-type",
                f"{where}: {factory or 'model'} is {type(made).__name__}, expected a "
                "torch.nn.Module",
            )
        )
    return made, inputs


def _called(value: Any, doing: str) -> Any:  # noqa: ANN401
    """Return what a function returns, and anything else as it is."""
    if isinstance(value, nn.Module) or not callable(value):
        return value
    return _guarded(value, f"calling {doing}")


def _inputs(given: Any, where: str) -> tuple[Any, ...] | Mapping[str, Any]:  # noqa: ANN401
    inputs = _called(given, "example_inputs()")
    if isinstance(inputs, Tensor):
        return (inputs,)
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs)
    raise UserError(
        Problem(
            "model-type",
            f"{where}: example_inputs is {type(inputs).__name__}, expected a tuple of tensors",
        )
    )


def _class_names(given: Any, where: str) -> tuple[str, ...] | None:  # noqa: ANN401
    if given is None:
        return None
    if isinstance(given, (tuple, list)) and all(isinstance(n, str) for n in given):
        return tuple(given)
    raise UserError(
        Problem("model-type", f"{where}: class_names must be a list of texts, found {given!r}")
    )


def _missing(module: ModuleType, where: str, name: str, what: str) -> None:
    defined = sorted(
        k
        for k, v in vars(module).items()
        if not k.startswith("_") and not inspect.ismodule(v) and _own(module, v)
    )
    raise UserError(
        Problem(
            "model-missing",
            f"{where} does not define '{name}': {what}",
            fix=f"it defines: {', '.join(defined) or 'nothing'}",
        )
    )


def _own(module: ModuleType, value: object) -> bool:
    """Whether a value was made in a module, and no function or class imported into it."""
    if not inspect.isclass(value) and not inspect.isroutine(value):
        return True
    return getattr(value, "__module__", module.__name__) == module.__name__
