"""Reads the assembly of a kernel: its innermost loops, and what their instructions do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pockc.backends.tvm import targets
from pockc.backends.tvm.build import compile_functions
from pockc.backends.tvm.lowering import lower_kernel
from pockc.backends.tvm.select import select
from tests.backends.native import Case

LABEL = re.compile(r"^([.\w$]+):")
BRANCH = re.compile(r"^(?:j\w+|b(?:\.?[a-z]{2})?|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.L\w+)$")
COMMENT = {"aarch64": "//", "armv7l": "@", "x86_64": "#"}
FUSED = re.compile(r"^(?:fmla|vfma|vfmadd\w+)\b")
APART = re.compile(r"^(?:fmul|vmul\.f32|vmulps)\b")  # an addition of its own follows
STACK = re.compile(r"\bsp\b|%rsp")
SPILL = re.compile(r"\b[qd]\d+.*\bsp\b|%rsp.*%[xyz]mm")
FRAME = re.compile(
    r"^\s*subq?\s+(?:\$(\d+), %rsp|sp, sp, #(\d+)(?:, lsl #(\d+))?)", re.MULTILINE
)
STORE = re.compile(r"^(?:st[rpu1]\w*|vst\w*|vmov\w*\s+%[xyz]mm\d+,\s*[-\w]*\()")


@dataclass(frozen=True)
class Loop:
    """The instructions of an innermost loop, as text."""

    instructions: tuple[str, ...]

    def count(self, what: re.Pattern[str]) -> int:
        return sum(what.search(i) is not None for i in self.instructions)

    def vector_registers(self) -> int:
        """Return how many vector registers they use; two of 64 bits are one of 128."""
        text = str(self)
        names = set(re.findall(r"%[xyz]mm(\d+)|\b[vq](\d+)\b", text))
        halves = {("", str(int(d) // 2)) for d in re.findall(r"\bd(\d+)\b", text)}
        return len(names | halves)

    def __str__(self) -> str:
        return "\n".join(self.instructions)


def assembly(case: Case, target: str, threads: int = 4) -> str:
    """Return the assembly of a case's kernel."""
    described = targets.get(target)
    (kernel,) = select(case.graph, described, threads).kernels.values()
    function = lower_kernel(kernel, described).function
    text: str = compile_functions({kernel.symbol: function}, described).inspect_source("asm")
    return text


def frame_bytes(text: str) -> int:
    """Return what the functions of a kernel take of a stack, one upon the other."""
    found = FRAME.findall(text)
    return sum(int(x86 or arm) << int(shift or 0) for x86, arm, shift in found)


def innermost_loops(text: str, arch: str) -> list[Loop]:
    """Return the loops that hold no other loop: a backward branch, and all up to it."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for raw in text.splitlines():
        line = raw.split(COMMENT[arch])[0].strip()
        if label := LABEL.match(line):
            labels[label[1]] = len(instructions)
        elif line and not line.startswith("."):
            instructions.append(line.replace("\t", " "))
    spans = set()
    for end, instruction in enumerate(instructions):
        branch = BRANCH.match(instruction)
        if branch and labels.get(branch[1], end + 1) <= end:
            spans.add((labels[branch[1]], end))
    inner = [
        (a, b)
        for a, b in spans
        if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in spans)
    ]
    return [Loop(tuple(instructions[a : b + 1])) for a, b in sorted(inner)]


def product_loops(case: Case, target: str) -> list[Loop]:
    """Return the loops of tiles: those that multiply and add many vectors, and do little else.

    A loop around one that the compiler has placed elsewhere looks innermost, but does more.
    """
    loops = innermost_loops(assembly(case, target), targets.get(target).arch)
    products = ((x, x.count(FUSED) + x.count(APART)) for x in loops)
    return [x for x, count in products if count >= max(8, len(x.instructions) // 4)]
