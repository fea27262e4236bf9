"""A kernel under construction: its code, its workspaces, and the loops that families share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from tvm import tirx

from pockc.backends.base import Lowerings
from pockc.backends.schedule import DEFAULT, Choice, Schedule
from pockc.backends.tvm.targets import Target
from pockc.backends.tvm.tir import Code, Expr, Memory, argument
from pockc.backends.tvm.values import (
    Index,
    NotVectorizableError,
    Scope,
    Source,
    Stored,
    stored,
)
from pockc.errors import Problem
from pockc.ir.graph import Node
from pockc.ir.types import DType, TensorType

PARALLEL_WORK = 1 << 15
"""Least work, in elements touched, that is worth waking the other threads for."""

PARALLEL_WORKS = (1 << 13, 1 << 18, 1 << 21)
"""What else may be tried."""


T = TypeVar("T", bound=Choice)


@dataclass(frozen=True, slots=True)
class Offer:
    """A choice that a generator made: what was chosen, and what could be instead."""

    chosen: Choice
    others: tuple[Choice, ...]


class Sink(Protocol):
    """Where the elements of an anchor's result go: to memory, mostly through an epilogue."""

    @property
    def type(self) -> TensorType:
        """The anchor's type; its layout is the order in which to produce the elements."""
        ...

    def put(self, scope: Scope, index: Index, value: Expr) -> None:
        """Take the element at an index."""
        ...

    def expect(self, scope: Scope, index: Index) -> None:
        """Ask the cache for the place of the element at an index: it will be put soon."""
        ...

    def merged(self, groups: Sequence[Sequence[int]]) -> Sink | None:
        """Return the sink with groups of dimensions as one each, None if that cannot be."""
        ...


@dataclass(slots=True)
class Builder:
    """One kernel for one target.

    Attributes:
        target: The processor.
        threads: The number of parts into which static partitions divide the work.
        code: The statements so far.
        workspaces: The workspaces so far, which become arguments.
        schedule: Choices that were measured.
        offered: The choices made so far.
    """

    target: Target
    threads: int
    code: Code = field(default_factory=Code)
    workspaces: list[Memory] = field(default_factory=list)
    schedule: Schedule = DEFAULT
    offered: dict[str, Offer] = field(default_factory=dict)
    _taken: list[Memory] = field(default_factory=list)

    def choose(self, name: str, usual: T, options: Iterable[T]) -> T:
        """Return what the schedule has for a choice, or the usual.

        Args:
            name: A field of `Schedule`.
            usual: The generator's own rule.
            options: What can be chosen; the usual need not be among them. What is offered
                changes speed and rounding only.

        A kernel of several loops may make a choice several times, each with its own options;
        loops that do not have the schedule's take the usual.
        """
        options = dict.fromkeys((usual, *options))
        wanted = getattr(self.schedule, name)
        chosen = next((o for o in options if o == wanted), usual)
        before = self.offered.get(name)
        others = (*(() if before is None else before.others), *options)
        if before is not None and before.chosen == wanted:
            self.offered[name] = Offer(before.chosen, _without(others, before.chosen))
        else:
            self.offered[name] = Offer(chosen, _without(others, chosen))
        return chosen

    def not_offered(self) -> list[Problem]:
        """Report, when the kernel is written, each choice of the schedule that no loop has."""
        return [
            _unknown_choice(name, wanted, self.offered.get(name))
            for name, wanted in self.schedule.choices.items()
            if name not in self.offered or self.offered[name].chosen != wanted
        ]

    def scope(self) -> Scope:
        """Return a scope that knows nothing yet."""
        return Scope(self.code)

    def workspace(self, size: int, dtype: DType) -> Memory:
        """Return a workspace of `size` elements, one that was given back if there is one."""
        free = (w for w in self.workspaces if w.dtype is dtype and w not in self._taken)
        memory = next(free, None)
        if memory is None:
            memory = argument(f"workspace{len(self.workspaces)}", size, dtype)
            self.workspaces.append(memory)
        memory.size = max(memory.size, size)
        self._taken.append(memory)
        return memory

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Give back the workspaces that are taken inside."""
        count = len(self._taken)
        yield
        del self._taken[count:]

    def stage(self, type: TensorType) -> Stored:
        """Return a workspace that holds a tensor."""
        return stored(type, self.workspace(type.size, type.dtype))

    def lanes(self, dtype: DType) -> int:
        """Return how many elements of a type to treat at once."""
        return max(1, self.target.vector_floats * 4 // max(dtype.nbytes, 4))

    @contextmanager
    def nest(self, extents: Sequence[int], kind: str = "serial") -> Iterator[tuple[Expr, ...]]:
        """Open one loop over all of `extents`, the last fastest; yields the indices."""
        total = math.prod(extents)
        with self.code.loop(total, kind) as whole:
            yield self.unravel(whole, extents)

    def unravel(self, whole: Expr, extents: Sequence[int]) -> tuple[Expr, ...]:
        """Return the indices of element number `whole` of a row-major shape."""
        big = [d for d, n in enumerate(extents) if n != 1]
        index: list[Expr] = [self.code.const(0)] * len(extents)
        step = 1
        for d in reversed(big):
            part = whole if step == 1 else tirx.floordiv(whole, step)
            index[d] = part if d == big[0] else tirx.floormod(part, extents[d])
            step *= extents[d]
        return tuple(self.code.bind(i) for i in index)

    def segments(
        self,
        cuts: Sequence[int],
        lanes: int,
        body: Callable[[Scope, Expr], None],
        scope: Scope,
    ) -> None:
        """Run `body(scope, i)` for i from the first cut to the last, vectorised between."""
        for first, last in itertools.pairwise(cuts):
            self.vector(
                last - first,
                lanes,
                lambda inner, i, first=first: body(inner, i + first if first else i),  # type: ignore[misc]
                scope,
            )

    def vector(
        self, extent: int, lanes: int, body: Callable[[Scope, Expr], None], scope: Scope
    ) -> None:
        """Run `body(scope, i)` for i below `extent`, vectorised, the rest as a shorter vector.

        Where the body has a condition that differs between lanes the loop is serial.
        """
        place = self.code.mark()
        try:
            self._vector(extent, lanes, body, scope)
        except NotVectorizableError:
            self.code.rewind(place)
            with self.code.loop(extent) as i:
                body(scope.inner(), i)

    def _vector(
        self, extent: int, lanes: int, body: Callable[[Scope, Expr], None], scope: Scope
    ) -> None:
        whole = extent // lanes
        if whole:
            with self.code.loop(whole) as block:
                self.lane(lanes, block * lanes, body, scope)
        self.lane(extent - whole * lanes, self.code.const(whole * lanes), body, scope)

    def lane(
        self, lanes: int, start: Expr, body: Callable[[Scope, Expr], None], scope: Scope
    ) -> None:
        """Run `body` for `lanes` elements from `start` as one vector."""
        if lanes == 1:
            body(scope.inner(), start)
        elif lanes:
            with self.code.loop(lanes, "vectorized") as j:
                body(scope.inner(lane=j), start + j)

    def kind(self, work: int) -> str:
        """Return whether a loop over so much work should be parallel."""
        if self.threads == 1:
            return "serial"
        least = self.choose("parallel_work", PARALLEL_WORK, PARALLEL_WORKS)
        return "parallel" if work >= least else "serial"

    @contextmanager
    def parts(self, total: int, work: int) -> Iterator[tuple[Expr, Expr, Expr]]:
        """Divide `total` rounds into parts, one per thread: yields (part, first round, count).

        The partition does not depend on how many threads run it, and so neither do sums.
        """
        count = self.part_count(total, work)
        with self.code.loop(count, self.kind(work)) as part:
            if count == 1:
                yield self.code.const(0), self.code.const(0), self.code.const(total)
                return
            first = self.code.bind(tirx.floordiv(part * total, count))
            last = self.code.bind(tirx.floordiv((part + 1) * total, count))
            yield part, first, last - first

    def part_count(self, total: int, work: int) -> int:
        """Return into how many parts `parts` divides."""
        return max(1, min(self.threads, total)) if self.kind(work) == "parallel" else 1

    def copy(self, source: Source, type: TensorType | None = None) -> Stored:
        """Store a computed tensor in a workspace, in the order of `type`."""
        target = self.stage(source.type if type is None else type)
        self.injective(
            target.type, 1, lambda scope, index: _store(scope, target, source, index)
        )
        return target

    def injective(
        self,
        type: TensorType,
        cost: int,
        body: Callable[[Scope, Index], None],
        cuts: Sequence[int] = (),
    ) -> None:
        """Run `body(scope, index)` for every index of a type, in the order of its memory.

        Args:
            type: What to run over.
            cost: Work per element, in simple operations.
            body: Emits the code of one element.
            cuts: Places along the innermost dimension where the body does something else.
        """
        order = [d for d in type.order if type.shape[d] != 1]
        if not order:
            body(self.scope(), (0,) * type.rank)
            return
        inner = order[-1]
        outer = order[:-1]
        lanes = self.lanes(type.dtype)
        work = type.size * cost
        if not outer and not cuts:
            self._line(type, inner, work, lanes, body)
            return
        with self.nest([type.shape[d] for d in outer], self.kind(work)) as found:

            def element(scope: Scope, i: Expr) -> None:
                place: list[Expr] = [0] * type.rank
                for d, at in zip(outer, found, strict=True):
                    place[d] = at
                place[inner] = i
                body(scope, tuple(place))

            self.segments((0, *cuts, type.shape[inner]), lanes, element, self.scope())

    def _line(
        self,
        type: TensorType,
        dim: int,
        work: int,
        lanes: int,
        body: Callable[[Scope, Index], None],
    ) -> None:
        """Run over one dimension, in parallel by whole vectors."""

        def element(scope: Scope, i: Expr) -> None:
            body(scope, tuple(i if d == dim else 0 for d in range(type.rank)))

        n = type.shape[dim]
        whole = n // lanes
        place = self.code.mark()
        try:
            with self.code.loop(whole, self.kind(work)) as block:
                if whole:
                    self.lane(lanes, block * lanes, element, self.scope())
            self.lane(n - whole * lanes, self.code.const(whole * lanes), element, self.scope())
        except NotVectorizableError:
            self.code.rewind(place)
            with self.code.loop(n, self.kind(work)) as i:
                element(self.scope(), i)


def _without(options: Iterable[Choice], one: Choice) -> tuple[Choice, ...]:
    return tuple(o for o in dict.fromkeys(options) if o != one)


def _unknown_choice(name: str, wanted: Choice, offer: Offer | None) -> Problem:
    known = "no such choice"
    if offer is not None:
        known = ", ".join(map(str, (offer.chosen, *offer.others)))
    return Problem(
        "unknown-choice",
        f"a kernel's schedule has {name}={wanted}; its generator offers {known}",
        fix="tune again with this version of pockc, or compile without the tuning database",
    )


def _store(scope: Scope, target: Stored, source: Source, index: Index) -> None:
    where = target.offset(index)
    where = scope.code.const(where) if isinstance(where, int) else where
    scope.code.emit(target.memory.store(where, source.at(scope, index)))


LowerRule = Callable[[Builder, Node, Sequence[Source], Sink], None]
lower: Lowerings[LowerRule] = Lowerings("tvm")
"""Ops with loops of their own: `@lower("matmul")` on `rule(builder, node, operands, sink)`."""
