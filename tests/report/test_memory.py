"""Pictures of memory say what the plan says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pockc.artifact import MEMORY, read_details
from pockc.errors import UserError
from pockc.plan import CATEGORIES
from pockc.report.memory import arena_figure, layers, memory_figure
from pockc.report.style import page_svg, save
from pockc.report.subject import Subject, read_subject
from pockc.runtime.manifest import DETAILS_FILE

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]


def test_the_timelines_maximum_is_the_plans(sparse: Subject, full: Subject) -> None:
    for subject in (sparse, full):
        memory, step = subject.planned()
        planned = subject.manifest.memory
        entry = subject.manifest.entries["train_step"]
        stack = layers(memory, step)
        assert max(step.timeline()) == entry.lower_bound_bytes
        assert stack.total.max() == planned["state_bytes"] + entry.lower_bound_bytes
        assert stack.bound_bytes == stack.total[stack.peak]
        assert stack.planned_bytes == planned["state_bytes"] + entry.arena_bytes
        # The arena's boxes reach just as high as the arena, up to alignment.
        top = max(b.offset_bytes + b.nbytes for b in step.blocks)
        assert 0 <= entry.arena_bytes - top < 64


def test_a_stack_that_leaves_a_block_out_is_not_the_plans(sparse: Subject) -> None:
    memory, step = sparse.planned()
    largest = step.alive(step.peak())[0]
    less = replace(step, blocks=tuple(b for b in step.blocks if b != largest))
    assert layers(memory, less).total[step.peak()] < layers(memory, step).bound_bytes


def test_boxes_of_the_arena_never_overlap(full: Subject) -> None:
    _, step = full.planned()
    taken = np.zeros((step.times, step.arena_bytes), bool)
    for b in step.blocks:
        part = taken[b.start : b.end + 1, b.offset_bytes : b.offset_bytes + b.nbytes]
        assert not part.any(), b
        part[:] = True


def test_a_sparse_update_saves_optimizer_state_and_activations(
    sparse: Subject, full: Subject
) -> None:
    a, b = layers(*sparse.planned()), layers(*full.planned())
    for name in ("parameters", "optimizer", "saved_activations"):
        assert a.rows[name].max() < b.rows[name].max()
    assert set(CATEGORIES) < set(a.rows)


def test_calls_tell_phase_module_and_line(full: Subject) -> None:
    _, step = full.planned()
    assert [c.phase for c in step.calls if c.phase == "forward"]
    modules = {c.module for c in step.calls}
    assert {"layers.0.0", "layers.2.2", "head"} <= modules
    line = next(c.source for c in step.calls if c.module == "head")
    assert "in Net.forward: return self.head(x)" in line


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures_are_files_with_something_on_them(
    sparse: Subject, full: Subject, tmp_path: Path, kind: str
) -> None:
    for name, made in (
        ("memory", memory_figure([sparse, full])),
        ("arena", arena_figure(sparse)[0]),
    ):
        path = tmp_path / f"{name}.{kind}"
        save(made, path)
        assert path.stat().st_size > 10_000
        if kind == "png":
            assert len(np.unique(imread(path).reshape(-1, 4), axis=0)) > 20


def test_the_picture_lists_what_is_alive_at_the_peak(sparse: Subject) -> None:
    text = page_svg(memory_figure([sparse]), "m")
    _, step = sparse.planned()
    assert "lower bound" in text
    assert "planned" in text
    largest = step.alive(step.peak())[0]
    assert (largest.module or largest.value) in text


def test_boxes_on_a_page_have_tips(sparse: Subject) -> None:
    made, tips = arena_figure(sparse)
    text = page_svg(made, "a", tips)
    assert text.count("<title>%") == len(tips) == len(sparse.planned()[1].blocks)
    assert 'id="a-block0"' in text
    assert "var(--p" in text


def test_a_picture_of_another_kind_is_refused(sparse: Subject, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[picture-format\] .*'memory.bmp'"):
        save(memory_figure([sparse]), tmp_path / "memory.bmp")


def test_an_older_artifact_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    assert MEMORY in read_details(folder / "sparse.pock")
    with pytest.raises(UserError, match=r"\[no-details\] .* does not hold its plan") as caught:
        read_details(tmp_path)
    assert "compile the model again" in str(caught.value)
    (tmp_path / DETAILS_FILE).write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"\[damaged-details\]"):
        read_details(tmp_path)


def test_a_backend_without_a_plan_says_so(sparse: Subject) -> None:
    with pytest.raises(UserError, match=r"\[no-plan\]"):
        replace(sparse, memory=None).planned()


def test_reading_needs_no_run(folder: Path) -> None:
    assert read_subject(folder / "full.pock").name == "full"
