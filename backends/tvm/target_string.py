"""Targets as TVM writes them: `llvm -mtriple=... -mcpu=... -mattr=...`, or the same as JSON.

TVM reads the JSON form only; its users still write the other one. Caches and cores are those
of a board with the same processor if one is known.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache

from pockc.backends.tvm.targets import ARM, ARM32, X86, Target, of_processor
from pockc.errors import Problem, UserError

_OPTIONS = ("mtriple", "mcpu", "mattr", "num-cores")
_KIB = 1024
_SHOWN = 12


@lru_cache(maxsize=64)
def parse(text: str) -> Target:
    """Return the target that a target string of TVM describes.

    Raises:
        UserError: [target-string] It cannot be read; [target-option] unknown to us;
            [target-triple] no system we link for; [target-processor], [target-feature] LLVM
            does not know it.
    """
    given = _json(text) if text.lstrip().startswith("{") else _words(text)
    triple, arch = _triple(given.get("mtriple", f"{os.uname().machine}-linux-gnu"))
    mcpu = given.get("mcpu", "generic")
    _check_processor(triple, mcpu)
    features = tuple(f.strip() for f in given.get("mattr", "").split(",") if f.strip())
    has = llvm_features(triple, mcpu, features)
    _check_features(features, has, triple)
    floats, registers = _vectors(arch, has)
    like = of_processor(triple, mcpu)
    return Target(
        name=arch if mcpu == "generic" else mcpu,
        triple=triple,
        mcpu=mcpu,
        features=features,
        vector_floats=floats,
        vector_registers=registers,
        l1_bytes=like.l1_bytes if like else 32 * _KIB,
        l2_bytes=like.l2_bytes if like else 512 * _KIB,
        cores=_cores(given, like),
    )


def llvm_features(triple: str, mcpu: str, features: Sequence[str]) -> frozenset[str]:
    """Return LLVM's names of what a processor has; none unless TVM is installed."""
    import tvm
    from tvm.target import codegen

    options = {"kind": "llvm", "mtriple": triple, "mcpu": mcpu, "mattr": list(features)}
    return frozenset(map(str, codegen.llvm_get_cpu_features(tvm.target.Target(options))))


def _words(text: str) -> dict[str, str]:
    """Read `llvm -key=value ...`; a value may also be the next word."""
    try:
        kind, *words = shlex.split(text)
    except ValueError as error:
        raise _unreadable(text, str(error)) from None
    given: dict[str, str] = {}
    while words:
        word = words.pop(0)
        key, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or (not equals and not words):
            raise _unreadable(text, f"'{word}' is no option with a value")
        given[key] = value if equals else words.pop(0)
    return _checked(kind, given)


def _json(text: str) -> dict[str, str]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _unreadable(text, str(error)) from None
    kind = data.pop("kind", "llvm")
    lists = {k: ",".join(v) if isinstance(v, list) else str(v) for k, v in data.items()}
    return _checked(str(kind), lists)


def _unreadable(text: str, why: str) -> UserError:
    fix = "write it as 'llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a73'"
    return UserError(
        Problem("target-string", f"cannot read the target '{text}': {why}", fix=fix)
    )


def _checked(kind: str, given: dict[str, str]) -> dict[str, str]:
    if kind != "llvm":
        what = f"targets of kind '{kind}' cannot be compiled for"
        raise UserError(Problem("target-string", what, fix="choose the kind 'llvm'"))
    choices = ", ".join(f"-{o}" for o in _OPTIONS)
    problems = [
        Problem(
            "target-option",
            f"a target has no option '-{name}'{_hint(name, _OPTIONS)}",
            fix=f"choose from: {choices}",
        )
        for name in given
        if name not in _OPTIONS
    ]
    if problems:
        raise UserError(*problems)
    return given


def _hint(name: str, choices: Sequence[str]) -> str:
    near = get_close_matches(name, choices, n=1)
    return f"; is it '{near[0]}'?" if near else ""


def _triple(given: str) -> tuple[str, str]:
    """Return the triple as our named targets spell it, and the instruction set."""
    arch, _, system = given.partition("-")
    known = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}
    known |= {"armv7l": ARM32, "armv7": ARM32, "armv7a": ARM32, "arm": ARM32}
    if arch not in known or "linux" not in system or system.endswith("gnueabi"):
        raise UserError(
            Problem(
                "target-triple",
                f"there is no runtime for '{given}'",
                fix=f"choose from: {X86}, {ARM}, {ARM32}",
            )
        )
    triple = known[arch]
    return triple, triple.partition("-")[0]


def _check_processor(triple: str, mcpu: str) -> None:
    import tvm
    from tvm.target import codegen

    found = codegen.llvm_get_cpu_archlist(
        tvm.target.Target({"kind": "llvm", "mtriple": triple})
    )
    known = [str(name) for name in found]
    if mcpu in known or mcpu == "generic":
        return
    near = get_close_matches(mcpu, known, n=_SHOWN, cutoff=0.5) or known[:_SHOWN]
    raise UserError(
        Problem(
            "target-processor",
            f"LLVM knows no processor '{mcpu}' for {triple}",
            fix=f"choose from: {', '.join(near)}, and {len(known) - len(near)} others",
        )
    )


def _check_features(features: Sequence[str], has: frozenset[str], triple: str) -> None:
    problems = []
    for feature in features:
        sign, name = feature[:1], feature[1:]
        if sign not in "+-" or (sign == "+" and name not in has):
            what = f"LLVM knows no feature '{feature}' for {triple}"
            problems.append(Problem("target-feature", what, fix="write it as '+neon'"))
    if problems:
        raise UserError(*problems)


def _vectors(arch: str, has: frozenset[str]) -> tuple[int, int]:
    """Return floats in a vector register, and the number of them."""
    if arch == "aarch64":
        return 4, 32
    if arch == "armv7l":
        return 4, 16
    if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= has:
        return 16, 32
    return (8, 16) if {"avx2", "fma"} <= has else (4, 16)


def _cores(given: Mapping[str, str], like: Target | None) -> int:
    number = given.get("num-cores")
    if number is None:
        return like.cores if like else 4
    if not number.isdigit() or not int(number):
        what = f"-num-cores is a number from 1 on, not '{number}'"
        raise UserError(Problem("target-option", what, fix="write it as -num-cores=4"))
    return int(number)
