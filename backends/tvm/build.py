"""Kernels to object files: TVM's passes, its code generator for LLVM, a cache.

A kernel is the plain C function `int32_t k(void *...)`. Its object has no undefined symbols but
`memset`, `memcpy` and functions of the C library's mathematics. Parallel loops call through the
weak pointer `__TVMBackendParallelLaunch`, which every object defines and the runtime sets.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from pockc.backends.base import Kernel, Progress
from pockc.backends.tvm import cache
from pockc.backends.tvm.lowering import lower_kernel
from pockc.backends.tvm.targets import Target

LAUNCH = "__TVMBackendParallelLaunch"
"""The pointer through which a kernel starts its parallel loops."""


def tvm_target(target: Target) -> Any:  # noqa: ANN401
    """Return TVM's description of a target."""
    options: dict[str, Any] = {"kind": "llvm", "mtriple": target.triple, "mcpu": target.mcpu}
    if target.features:
        options["mattr"] = list(target.features)
    if target.triple.endswith("hf"):
        # TVM does not ask the triple, and would pass a float to `floorf` as an integer.
        options["mfloat-abi"] = "hard"
    found = tvm.target.Target(options)
    return found.with_host(found)


def lowered_module(functions: Mapping[str, Any], target: Target) -> Any:  # noqa: ANN401
    """Return functions lowered to what the code generator takes."""
    # No simplification: it replaces bound variables by what they are bound to, and a chain of
    # polynomials grows without limit (a cross-entropy over 5 classes took 40 s). LLVM copes.
    passes = [
        tirx.transform.BindTarget(tvm_target(target)),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.UnrollLoop(),
        tirx.transform.LowerTVMBuiltin(),
        tirx.transform.LowerIntrin(),
    ]
    config = {"tirx.disable_assert": True, "tirx.UnrollLoop": {"explicit_unroll": True}}
    with tvm.transform.PassContext(config=config):
        return tvm.ir.transform.Sequential(passes)(tvm.IRModule(dict(functions)))


def compile_functions(functions: Mapping[str, Any], target: Target) -> Any:  # noqa: ANN401
    """Return TVM's runtime module of some functions."""
    generate = tvm.get_global_func("target.build.llvm")
    return generate(lowered_module(functions, target), tvm_target(target))


def object_of(kernel: Kernel, target: Target) -> bytes:
    """Compile one kernel and return its object file."""
    lowered = lower_kernel(kernel, target)
    module = compile_functions({kernel.symbol: lowered.function}, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.o"
        module.write_to_file(str(path), "o")
        return path.read_bytes()


def build(
    kernels: Sequence[Kernel], target: Target, progress: Progress | None = None
) -> dict[str, bytes]:
    """Return the object file of each kernel, from the cache or newly compiled on all cores."""
    found: dict[str, bytes] = {}
    missing: list[Kernel] = []
    for kernel in {k.symbol: k for k in kernels}.values():
        code = cache.read_object(cache.key(kernel, target))
        if code is None:
            missing.append(kernel)
        else:
            found[kernel.symbol] = code
    total = len(found) + len(missing)
    if progress is not None:
        progress(len(found), total)
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        work = {pool.submit(object_of, k, target): k for k in missing}
        for done in as_completed(work):
            kernel = work[done]
            found[kernel.symbol] = done.result()
            cache.write(cache.key(kernel, target), kernel.workspace_bytes, done.result())
            if progress is not None:
                progress(len(found), total)
    return dict(sorted(found.items()))
