"""Turns an entry into a straight line of calls over storages.

A storage is what several values share: a view is its operand's bytes, an in-place result is the
operand that it overwrites. Some storages have a home in the state. The new value of a state
tensor is written straight to its home when nobody reads the old value any more by then;
otherwise it is made in the arena and copied home as soon as the old value is done with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pockc.errors import InternalError, Problem
from pockc.ir.graph import Graph, Node
from pockc.ir.printer import print_node
from pockc.ir.roles import OutputRole, Scalar, state_written
from pockc.ir.views import is_view
from pockc.plan.types import COPY_KERNEL, Constant, Entry, StateKey

Home = StateKey | Scalar


@dataclass(frozen=True, slots=True)
class Instruction:
    """One call before its operands have places.

    Attributes:
        kernel: The C symbol.
        reads: The values it reads, in the order of its arguments.
        result: The value it makes.
        in_place: Whether the result overwrites an operand, and so is no argument of its own.
        workspace_bytes: Sizes of its workspaces.
        node: The node, or for a copy the copied value.
    """

    kernel: str
    reads: tuple[str, ...]
    result: str
    in_place: bool
    workspace_bytes: tuple[int, ...]
    node: str


@dataclass
class Program:
    """An entry as calls over storages; a storage is named by its first value.

    Attributes:
        entry: What it was made from.
        instructions: The calls in order, copies included.
        root: The storage of each value.
        nbytes: Size of each storage.
        home: Where a storage lies that does not lie in the arena.
        results: The value that holds each output in the end, unless it is new state.
    """

    entry: Entry
    instructions: list[Instruction]
    root: dict[str, str]
    nbytes: dict[str, int]
    home: dict[str, Home] = field(default_factory=dict)
    results: dict[OutputRole, str] = field(default_factory=dict)

    def made_at(self) -> dict[str, int]:
        """Return the index of the instruction that first writes each storage."""
        made: dict[str, int] = {}
        for at, call in enumerate(self.instructions):
            made.setdefault(self.root[call.result], at)
        return made

    def read_at(self) -> dict[str, int]:
        """Return the index of the last instruction that reads each storage.

        What an output names is read by the caller, after the last instruction.
        """
        last: dict[str, int] = {}
        for at, call in enumerate(self.instructions):
            for value in call.reads:
                last[self.root[value]] = at
        for value in self.results.values():
            last[self.root[value]] = len(self.instructions)
        return last


def program_of(entry: Entry) -> Program:
    """Return the calls of an entry with every copy that its state needs.

    Raises:
        InternalError: [plan-no-call] Nodes that no kernel computes and that are no views;
            [plan-update-type] a new value whose type is not that of the tensor it replaces.
    """
    _check(entry)
    program = Program(entry, list(_calls(entry)), _roots(entry), {})
    graph = entry.graph
    for value, root in program.root.items():
        size = graph.type_of(value).nbytes
        program.nbytes[root] = max(size, program.nbytes.get(root, 0))
    for source in graph.inputs:
        if isinstance(source.role, Home):
            program.home[source.name] = source.role
    for node in graph.nodes:
        if node.op == "literal" and node.name not in entry.calls:
            program.home[node.name] = constant_of(node)
    _keep_old_values(program)
    _bring_updates_home(program)
    return program


def _check(entry: Entry) -> None:
    graph = entry.graph
    problems = [
        Problem("plan-no-call", f"nothing computes %{n.name}", at=print_node(n))
        for n in graph.nodes
        if n.name not in entry.calls and n.op != "literal" and not is_view(graph, n)
    ]
    for output in graph.outputs:
        target = target_of(graph, output.role)
        if target is not None and graph.type_of(target) != graph.type_of(output.value):
            what = (
                f"%{output.value} is {graph.type_of(output.value)} and cannot replace "
                f"%{target}, which is {graph.type_of(target)}"
            )
            problems.append(Problem("plan-update-type", what))
    if problems:
        raise InternalError(*problems)


def target_of(graph: Graph, role: OutputRole) -> str | None:
    """Return the input whose storage an output writes, None if it writes no state."""
    state = state_written(role)
    if state is None:
        return None
    found = graph.input_of(state)
    if found is None:
        raise InternalError(Problem("plan-no-state", f"{role} updates what the graph lacks"))
    return found.name


def _calls(entry: Entry) -> Iterator[Instruction]:
    for node in entry.graph.nodes:
        call = entry.calls.get(node.name)
        if call is not None:
            yield Instruction(
                call.symbol,
                call.operands,
                node.name,
                _overwritten(node) is not None,
                call.workspace_bytes,
                node.name,
            )


def constant_of(node: Node) -> Constant:
    """Return the key in the state of a `literal` node's content."""
    return Constant(node.attrs["value"].digest, node.type.layout)


def _overwritten(node: Node) -> str | None:
    """Return the operand that a node overwrites, None if it has a buffer of its own."""
    index = node.attrs.get("inplace")
    return None if index is None else node.inputs[index]


def _roots(entry: Entry) -> dict[str, str]:
    root = {i.name: i.name for i in entry.graph.inputs}
    for node in entry.graph.nodes:
        shared = _overwritten(node)
        if shared is None and node.name not in entry.calls and node.op != "literal":
            shared = node.inputs[0]
        root[node.name] = node.name if shared is None else root[shared]
    return root


def _contents(graph: Graph, calls: Mapping[str, object]) -> dict[str, str]:
    """Return for each value the value whose content it is: views are looked through."""
    content = {i.name: i.name for i in graph.inputs}
    for node in graph.nodes:
        view = node.name not in calls and node.op != "literal"
        content[node.name] = content[node.inputs[0]] if view else node.name
    return content


def _keep_old_values(program: Program) -> None:
    """Copy the old values of state that outlive their replacement, before anything runs.

    It happens when an output other than the tensor's own update is the old value, as when two
    tensors trade places.
    """
    graph = program.entry.graph
    content = _contents(graph, program.entry.calls)
    targets = {o.role: target_of(graph, o.role) for o in graph.outputs}
    replaced = {targets[o.role] for o in graph.outputs if content[o.value] != targets[o.role]}
    copies: dict[str, str] = {}
    for output in graph.outputs:
        value = old = content[output.value]
        if old in replaced and targets[output.role] != old:
            value = copies.setdefault(old, f"{old}.kept")
        else:
            value = output.value
        program.results[output.role] = value
    for old, kept in copies.items():
        program.root[kept] = kept
        program.nbytes[kept] = graph.type_of(old).nbytes
    program.instructions[:0] = [
        Instruction(COPY_KERNEL, (old,), kept, False, (), old) for old, kept in copies.items()
    ]


def _bring_updates_home(program: Program) -> None:
    """Give new values of state their tensor's home, or copy them there."""
    graph = program.entry.graph
    made, last = program.made_at(), program.read_at()
    copies: dict[int, list[Instruction]] = defaultdict(list)
    for output in graph.outputs:
        target = target_of(graph, output.role)
        if target is None:
            continue
        value = program.results.pop(output.role)
        root = program.root[value]
        if root == target:
            continue
        old_read = last.get(target, -1)
        if _movable(program, root) and old_read < made[root]:
            program.home[root] = program.home[target]
            continue
        at = max(old_read, _last_write(program, root))
        arrived = f"{target}.new"
        program.root[arrived] = target
        copy = Instruction(COPY_KERNEL, (value,), arrived, False, (), output.value)
        copies[at].append(copy)
        last[root] = max(last.get(root, -1), at)
    _insert(program, copies)


def _movable(program: Program, root: str) -> bool:
    """Whether a storage may lie in the state: it has no home and no caller fills it."""
    node_made = isinstance(program.entry.graph.defs.get(root), Node)
    return node_made and root not in program.home


def _last_write(program: Program, root: str) -> int:
    return max(
        (i for i, c in enumerate(program.instructions) if program.root[c.result] == root),
        default=-1,
    )


def _insert(program: Program, copies: Mapping[int, list[Instruction]]) -> None:
    merged = list(copies.get(-1, ()))
    for at, call in enumerate(program.instructions):
        merged.append(call)
        merged += copies.get(at, ())
    program.instructions = merged
