"""The verifier finds every defect that is put into a good plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pockc.errors import InternalError
from pockc.plan import Entry, EntryPlan, Place, Plan, Space, Step, make_plan, verify_plan
from tests.plan.graphs import SGD, SWAP
from tests.plan.machine import entry_of

ENTRY = entry_of(SGD, {"g": (256,)})
GOOD = make_plan([ENTRY])


def slugs(entry: Entry, plan: Plan) -> set[str]:
    with pytest.raises(InternalError) as caught:
        verify_plan([entry], plan)
    return {p.slug for p in caught.value.problems}


def with_steps(change: Callable[[list[Step]], list[Step]]) -> Plan:
    entry = GOOD.entries[0]
    steps = tuple(change(list(entry.steps)))
    return replace(GOOD, entries=(replace(entry, steps=steps),))


def with_entry(**changed: object) -> Plan:
    changed_entry: EntryPlan = replace(GOOD.entries[0], **changed)  # type: ignore[arg-type]
    return replace(GOOD, entries=(changed_entry,))


def moved(place: Place, by: int) -> Place:
    return replace(place, offset_bytes=place.offset_bytes + by)


def with_argument(step: int, argument: int, change: Callable[[Place], Place]) -> Plan:
    def edit(steps: list[Step]) -> list[Step]:
        args = list(steps[step].args)
        args[argument] = change(args[argument])
        steps[step] = replace(steps[step], args=tuple(args))
        return steps

    return with_steps(edit)


def everywhere(old: Place, new: Place) -> Plan:
    def edit(steps: list[Step]) -> list[Step]:
        return [replace(s, args=tuple(new if a == old else a for a in s.args)) for s in steps]

    return with_steps(edit)


def test_a_good_plan_passes() -> None:
    verify_plan([ENTRY], GOOD)


def test_two_values_on_the_same_bytes_are_found() -> None:
    batch, hidden = GOOD.entries[0].steps[0].args[0], GOOD.entries[0].steps[0].args[2]
    assert slugs(ENTRY, everywhere(hidden, batch)) >= {"plan-apart", "plan-clobbered"}


@pytest.mark.parametrize("by", [64, -64])
def test_a_read_from_a_wrong_offset_is_found(by: int) -> None:
    assert "plan-clobbered" in slugs(ENTRY, with_argument(1, 0, lambda p: moved(p, by)))


def test_a_place_that_is_not_aligned_is_found() -> None:
    assert "plan-bounds" in slugs(ENTRY, with_argument(1, 1, lambda p: moved(p, 4)))


def test_a_place_outside_the_arena_is_found() -> None:
    far = with_argument(6, 1, lambda p: moved(p, 1 << 20))
    assert "plan-bounds" in slugs(ENTRY, far)


def test_a_step_that_is_missing_is_found() -> None:
    assert "plan-calls" in slugs(ENTRY, with_steps(lambda s: s[:1] + s[2:]))


def test_a_step_that_runs_twice_is_found() -> None:
    assert "plan-calls" in slugs(ENTRY, with_steps(lambda s: [*s, s[-1]]))


def test_steps_in_a_wrong_order_are_found() -> None:
    swapped = with_steps(lambda s: [s[1], s[0], *s[2:]])
    assert "plan-clobbered" in slugs(ENTRY, swapped)


def test_another_kernel_is_found() -> None:
    other = with_steps(lambda s: [replace(s[0], kernel="k_other"), *s[1:]])
    assert "plan-calls" in slugs(ENTRY, other)


def test_a_workspace_over_an_operand_is_found() -> None:
    operand = GOOD.entries[0].steps[3].args[0]
    broken = with_argument(3, 3, lambda p: replace(operand, nbytes=p.nbytes))
    assert "plan-apart" in slugs(ENTRY, broken)


def test_a_workspace_of_another_size_is_found() -> None:
    assert "plan-calls" in slugs(ENTRY, with_argument(3, 3, lambda p: replace(p, nbytes=128)))


def test_an_update_that_does_not_reach_its_slot_is_found() -> None:
    # The last step writes over the parameter what is not its new value.
    def edit(steps: list[Step]) -> list[Step]:
        source = steps[1].args[1]
        target = steps[0].args[1]
        return [*steps, Step("pk_copy", (source, replace(target, nbytes=source.nbytes)), "y")]

    assert slugs(ENTRY, with_steps(edit)) & {"plan-state", "plan-clobbered"}


def test_a_write_to_a_scalar_is_found() -> None:
    broken = with_argument(4, 2, lambda p: Place(Space.SCALAR, 0, p.nbytes))
    assert "plan-bounds" in slugs(ENTRY, broken)


def test_state_slots_that_overlap_are_found() -> None:
    entry = entry_of(SWAP)
    plan = make_plan([entry])
    first, second = plan.state.slots
    slots = (first, replace(second, offset_bytes=0))
    broken = replace(plan, state=replace(plan.state, slots=slots))
    assert "plan-state" in slugs(entry, broken)


def test_a_copy_that_is_forgotten_is_found() -> None:
    entry = entry_of(SWAP)
    plan = make_plan([entry])
    planned = plan.entries[0]
    for missing in range(len(planned.steps)):
        steps = planned.steps[:missing] + planned.steps[missing + 1 :]
        broken = replace(plan, entries=(replace(planned, steps=steps),))
        assert slugs(entry, broken) & {"plan-clobbered", "plan-state"}


def test_ports_that_are_missing_are_found() -> None:
    assert "plan-ports" in slugs(ENTRY, with_entry(inputs=GOOD.entries[0].inputs[1:]))
    assert "plan-ports" in slugs(ENTRY, with_entry(outputs=GOOD.entries[0].outputs[1:]))


def test_figures_that_cannot_be_are_found() -> None:
    assert "plan-bounds" in slugs(ENTRY, with_entry(lower_bound_bytes=1 << 30))
    assert "plan-bounds" in slugs(ENTRY, replace(GOOD, arena_bytes=0))


def test_other_entries_than_asked_for_are_found() -> None:
    assert slugs(replace(ENTRY, name="other"), GOOD) == {"plan-entries"}


def test_a_problem_says_who_looked_for_what_and_what_was_there() -> None:
    swapped = with_steps(lambda s: [s[1], s[0], *s[2:]])
    with pytest.raises(InternalError) as caught:
        verify_plan([ENTRY], swapped)
    text = str(caught.value.problems[0])
    assert text.startswith("[plan-clobbered] %y looks for %h at arena[")
    assert "and finds nothing" in text


def test_a_step_that_writes_what_is_frozen_is_found() -> None:
    update = GOOD.state.slots
    frozen = tuple(replace(s, space=Space.FROZEN) for s in update)
    state = replace(GOOD.state, slots=frozen, nbytes=0, frozen_nbytes=GOOD.state.nbytes)
    spaces = {s.place: f.place for s, f in zip(update, frozen, strict=True)}
    entry = GOOD.entries[0]
    moved_entry = replace(
        entry,
        steps=tuple(
            replace(s, args=tuple(spaces.get(a, a) for a in s.args)) for s in entry.steps
        ),
        inputs=tuple(replace(i, place=spaces.get(i.place, i.place)) for i in entry.inputs),
        outputs=tuple(replace(o, place=spaces.get(o.place, o.place)) for o in entry.outputs),
    )
    assert slugs(ENTRY, replace(GOOD, state=state, entries=(moved_entry,))) == {"plan-frozen"}


def test_a_slot_in_the_arena_is_found() -> None:
    slot = GOOD.state.slots[0]
    slots = (replace(slot, space=Space.ARENA), *GOOD.state.slots[1:])
    state = replace(GOOD.state, slots=slots)
    assert "plan-state" in slugs(ENTRY, replace(GOOD, state=state))
