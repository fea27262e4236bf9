"""Execution providers of ONNX Runtime: which there are, where their tensors live, a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pockc.errors import Problem, UserError

CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Device:
    """Where a provider's tensors live.

    Attributes:
        name: As ONNX Runtime's bindings call it: its one word for the memory of any GPU.
        number: Which of them.
        overwrites: Whether a step may write a tensor over the one that it reads.
    """

    name: str = "cpu"
    number: int = 0
    overwrites: bool = True

    @property
    def is_host(self) -> bool:
        """Whether that is the processor's own memory."""
        return self.name == "cpu"


_ON_GPU = {
    "CUDAExecutionProvider": True,
    "TensorrtExecutionProvider": True,
    "NvTensorRTRTXExecutionProvider": True,
    "ROCMExecutionProvider": True,
    "MIGraphXExecutionProvider": True,
    # WebGPU forbids a buffer that is read and written within one pass.
    "WebGpuExecutionProvider": False,
}
"""Providers whose tensors are not in the processor's memory; and `Device.overwrites`."""


def onnxruntime() -> Any:  # noqa: ANN401  the module; this is the one place that imports it
    """Return the package.

    Raises:
        UserError: [no-onnxruntime] It is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        what = "the artifact holds ONNX models, and onnxruntime is not installed"
        raise UserError(
            Problem("no-onnxruntime", what, fix="pip install onnxruntime")
        ) from None
    return onnxruntime


def chosen(ort: Any, wanted: Sequence[Any] | None) -> list[tuple[str, dict[str, Any]]]:  # noqa: ANN401
    """Return providers with their full names and options, the processor last.

    Args:
        ort: The package.
        wanted: Names, or pairs of a name and its options; None is the processor.

    Raises:
        UserError: [no-provider] The installed package lacks one.
    """
    present = ort.get_available_providers()
    full = {p.removesuffix("ExecutionProvider").lower(): p for p in present}
    found, problems = [], []
    for one in wanted or ():
        name, options = one if isinstance(one, tuple) else (one, {})
        known = name if name in present else full.get(name.lower())
        if known is None:
            what = f"this onnxruntime has no execution provider '{name}'"
            fix = f"choose from: {', '.join(sorted(full))}; or install a package that has it"
            problems.append(Problem("no-provider", what, fix=fix))
        else:
            found.append((known, dict(options)))
    if problems:
        raise UserError(*problems)
    if all(name != CPU for name, _ in found):
        found.append((CPU, {}))
    return found


def device_of(provider: tuple[str, dict[str, Any]]) -> Device:
    """Return where the tensors of a chosen provider live."""
    name, options = provider
    if name not in _ON_GPU:
        return Device()
    # Whatever the vendor, bindings know a GPU by this name.
    return Device("cuda", int(options.get("device_id", 0)), _ON_GPU[name])


def new_session(
    ort: Any,  # noqa: ANN401
    path: Path,
    providers: Sequence[tuple[str, dict[str, Any]]],
    threads: int | None = None,
    recordings: Path | None = None,
) -> Any:  # noqa: ANN401  an InferenceSession
    """Load a model.

    Args:
        ort: The package.
        path: The model's file.
        providers: From `chosen`.
        threads: Of the processor; None for its cores.
        recordings: A folder in which it records when operators run, or None.

    Raises:
        UserError: [onnx-load] It cannot be loaded; [provider-failed] its provider cannot start.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # One block for a whole run would be allocated beside those of the first run, which the
    # runtime keeps: half the memory at the same speed without (MobileNetV2: 384, 709 MiB).
    options.enable_mem_pattern = False
    if recordings is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(recordings / path.stem)
    first = providers[0][0]
    # Without this the package takes the processor when a provider fails, and goes on.
    arguments = {"providers": list(providers), "enable_fallback": 0}
    try:
        session = ort.InferenceSession(str(path), options, **arguments)
    except Exception as error:
        what = f"ONNX Runtime {ort.__version__} does not load {path}: {error}"
        fix = "compile with an older --opset, or install a newer onnxruntime"
        if first != CPU:
            fix += f"; or run on the processor, if {_short(first)} lacks an operator"
        raise UserError(Problem("onnx-load", what, fix=fix)) from error
    if first not in session.get_providers():
        what = f"ONNX Runtime {ort.__version__} cannot start its provider {_short(first)}"
        fix = "install its driver and libraries, which the lines above name, or choose another"
        raise UserError(Problem("provider-failed", what, fix=fix))
    return session


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider").lower()
