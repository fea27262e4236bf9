"""`include/pock_core.h` for ctypes: structures, signatures, and loading the library."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from pockc.errors import Problem, UserError


class CTensor(ctypes.Structure):
    """`pk_tensor`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("order", ctypes.POINTER(ctypes.c_uint32)),
        ("nbytes", ctypes.c_uint64),
        ("dtype", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("rank", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class CEntry(ctypes.Structure):
    """`pk_entry_info`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("inputs", ctypes.c_uint32),
        ("outputs", ctypes.c_uint32),
        ("steps", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("arena_bytes", ctypes.c_uint64),
        ("lower_bound_bytes", ctypes.c_uint64),
    )


class CMemory(ctypes.Structure):
    """`pk_memory`."""

    _fields_ = (
        ("state_bytes", ctypes.c_uint64),
        ("arena_bytes", ctypes.c_uint64),
        ("runtime_bytes", ctypes.c_uint64),
        ("total_bytes", ctypes.c_uint64),
        ("frozen_bytes", ctypes.c_uint64),
    )


class CFrozen(ctypes.Structure):
    """`pk_frozen`."""

    _fields_ = (
        ("file", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
    )


class CScalars(ctypes.Structure):
    """`pk_scalars`."""

    _fields_ = (
        ("lr", ctypes.c_float),
        ("reserved", ctypes.c_uint32),
        ("step", ctypes.c_uint64),
        ("seed", ctypes.c_int64),
    )


def load_library(path: Path) -> tuple[int | None, Any]:
    """Load a library; return the descriptor that must stay open with it, and the library.

    Raises:
        UserError: [library-load] The system does not load it.
    """
    # The loader takes a library for loaded if its *name* is, even when the file has been
    # replaced. A descriptor that stays open is a name that no other library has.
    handle: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    name = f"/proc/self/fd/{handle}"
    if not Path(name).exists():
        os.close(handle or 0)
        handle, name = None, str(path)
    try:
        return handle, ctypes.CDLL(name, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        if handle is not None:
            os.close(handle)
        why = str(error).replace(name, str(path))
        raise UserError(
            Problem(
                "library-load",
                f"the system does not load {path}: {why}",
                fix="compile the model for this machine: --target",
            )
        ) from error


def declare(dll: Any) -> None:  # noqa: ANN401  ctypes makes its functions at run time
    """Tell ctypes what every function takes and returns."""
    pointer, u32, u64, i64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
    signatures: dict[str, tuple[Any, ...]] = {
        "memory_needed": (u32, pointer),
        "open": (u32, pointer, pointer),
        "close": (pointer,),
        "memory_used": (pointer, pointer),
        "threads": (pointer,),
        "entry_count": (pointer,),
        "entry_at": (pointer, u32, pointer),
        "input_at": (pointer, u32, u32, pointer),
        "output_at": (pointer, u32, u32, pointer),
        "step_at": (pointer, u32, u32, pointer, pointer),
        "tensor_count": (pointer,),
        "tensor_at": (pointer, u32, pointer),
        "tensor_memory": (pointer, u32, pointer),
        "tensor_read": (pointer, u32, u64, u64, pointer),
        "tensor_write": (pointer, u32, u64, u64, pointer),
        "frozen_offset": (pointer, u32, pointer),
        "frozen_changed": (pointer,),
        "state_check": (pointer, pointer),
        "run": (pointer, u32, pointer, pointer, pointer),
        "train_step": (pointer, ctypes.c_float, pointer, pointer),
        "micro_batches": (pointer,),
        "progress_get": (pointer, pointer, pointer),
        "progress_set": (pointer, u64, i64),
        "step_seed": (i64, u64, u32),
        "failed_step": (pointer, pointer, pointer, pointer),
        "status_text": (ctypes.c_int,),
    }
    results: dict[str, Any] = {
        "close": None,
        "status_text": ctypes.c_char_p,
        "step_seed": i64,
    }
    for name, parameters in signatures.items():
        function = getattr(dll, f"pk_{name}")
        function.argtypes = parameters
        function.restype = results.get(name, ctypes.c_int)
