"""The report opens in a real browser: no console errors, no requests, tables that sort."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from pockc.cli.app import run
from pockc.profile import Profile, write_profile
from pockc.report.files import Pictures
from pockc.report.report import Reported, report_html
from pockc.report.subject import read_subject
from pockc.report.times import by_module
from tests.programs import need_program
from tests.report.profiles import measured, recorded

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]


@pytest.fixture(scope="session")
def profiles(folder: Path) -> dict[str, Profile]:
    return {name: measured(folder / f"{name}.pock") for name in ("sparse", "full")}


@pytest.fixture(scope="session")
def page_path(folder: Path, profiles: dict[str, Profile]) -> Path:
    """A report of both artifacts, made from the command line."""
    for name, profile in profiles.items():
        write_profile(profile, folder / f"{name}.json")
    words = ["report", folder / "sparse.pock", "--compare", folder / "full.pock"]
    words += ["--profile", folder / "sparse.json", "--profile", folder / "full.json"]
    assert run([*map(str, words), "-o", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = need_program("chromium")
    with sync_playwright() as playwright:
        # The sandbox needs rights that root in a container does not have.
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def told() -> list[str]:
    """What went wrong on the page."""
    return []


@pytest.fixture
def page(browser: Any, page_path: Path, told: list[str]) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme="light")
    opened.on("console", lambda message: told.append(message.text))
    opened.on("pageerror", lambda error: told.append(str(error)))

    def note(request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            told.append(request.url)

    opened.on("request", note)
    opened.goto(page_path.as_uri())
    yield opened
    opened.close()


def test_it_opens_without_a_word_and_asks_for_nothing(page: Any, told: list[str]) -> None:
    titles = page.locator("h2").all_inner_texts()
    assert titles == [
        "Summary", "What is trained", "Memory over the step", "Arena", "Time by module",
        "Roofline", "Kernels", "Trained tensors",
    ]  # fmt: skip
    # Two artifacts beside each other: net, memory, arena, modules and roofline of both.
    assert page.locator("figure > svg").count() == 10
    for box in (f.bounding_box() for f in page.locator("figure > svg").all()):
        assert box["width"] > 400
        assert box["height"] > 80
    assert told == []


def test_a_page_with_an_error_would_be_noticed(
    browser: Any, page_path: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(page_path.read_text().replace('"use strict";', "nothing.there();"))
    opened, told = browser.new_page(), []
    opened.on("pageerror", lambda error: told.append(str(error)))
    opened.goto(broken.as_uri())
    opened.close()
    assert "nothing is not defined" in told[0]


def test_the_kernels_table_sorts_by_time_and_by_name(page: Any, told: list[str]) -> None:
    table = page.locator("#kernels table").first

    def column(n: int) -> Any:
        return table.locator(f"tbody tr td:nth-child({n})")

    def times() -> list[float]:
        return [float(c.get_attribute("data-v")) for c in column(4).all()]

    assert times() == sorted(times(), reverse=True)
    head = table.locator("th", has_text="ms").locator("button")
    head.click()
    assert times() == sorted(times())
    assert table.locator("th[aria-sort=ascending]").inner_text().startswith("ms")
    table.locator("th", has_text="module").locator("button").click()
    names = [text.split("\n")[0] for text in column(3).all_inner_texts()]
    assert names == sorted(names, key=str.casefold)
    assert told == []


def test_the_filter_hides_other_rows(page: Any) -> None:
    section = page.locator("#kernels > div > div").first
    rows = section.locator("tbody tr")
    every = rows.count()
    section.locator("input").fill("head")
    shown = [r for r in rows.all() if r.is_visible()]
    assert 0 < len(shown) < every
    assert all("head" in r.inner_text() for r in shown)


def test_it_is_light_and_dark(page: Any, tmp_path: Path) -> None:
    def paper() -> str:
        color: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return color

    light = paper()
    page.screenshot(path=tmp_path / "light.png")
    page.locator("#theme").click()
    page.screenshot(path=tmp_path / "dark.png")
    assert paper() != light
    assert imread(tmp_path / "light.png").mean() > 0.75
    assert imread(tmp_path / "dark.png").mean() < 0.4
    page.locator("#theme").click()
    assert paper() == light
    page.emulate_media(color_scheme="dark")
    page.evaluate("delete document.documentElement.dataset.theme")
    assert paper() != light


def test_nothing_is_wider_than_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 420, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_the_page_says_what_the_profile_says(page: Any, profiles: dict[str, Profile]) -> None:
    tiles = page.locator("#summary").inner_text()
    assert f"{profiles['full'].median_ms:.3g} ms" in tiles
    assert "% of full" in tiles
    assert page.locator("#kernels tbody").first.locator("tr").count() == len(
        profiles["sparse"].kernels
    )


def test_without_a_profile_the_plan_is_shown(folder: Path) -> None:
    text = report_html([Reported(read_subject(folder / "sparse.pock"))])
    assert "Memory over the step" in text
    assert "Roofline" not in text
    assert "k_" in text


def test_a_profile_of_another_program_is_refused(
    folder: Path, page_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert page_path.exists()
    words = ["report", str(folder / "full.pock"), "--profile", str(folder / "sparse.json")]
    assert run(words) == 1
    assert "[profile-of-another]" in capsys.readouterr().err


def test_what_a_device_recorded_is_a_profile_too(folder: Path, tmp_path: Path) -> None:
    file = recorded(folder / "full.pock", tmp_path / "times.json")
    words = ["report", folder / "full.pock", "--profile", file, "-o", tmp_path / "r.html"]
    assert run([*map(str, words)]) == 0
    assert "Roofline" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_pictures_of_time_are_files(
    folder: Path, tmp_path: Path, profiles: dict[str, Profile]
) -> None:
    shown = [Reported(read_subject(folder / f"{n}.pock"), p) for n, p in profiles.items()]
    written = {p.name: p for p in Pictures(tmp_path / "new" / "folder").write(shown)}
    assert {"memory.png", "full.roofline.png", "full.modules.png", "full.net.svg"} <= set(
        written
    )
    for path in written.values():
        assert 1_000 < path.stat().st_size < 100_000
        if path.suffix == ".png":
            assert len(np.unique(imread(path).reshape(-1, 4), axis=0)) > 20


def test_modules_take_all_of_the_time(profiles: dict[str, Profile]) -> None:
    for most in (3, 16):
        rows = by_module(profiles["full"].kernels, most)
        assert len(rows) <= most
        total = sum(sum(r.values()) for r in rows.values())
        assert total == pytest.approx(sum(k.ms for k in profiles["full"].kernels))
