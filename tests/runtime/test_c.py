"""The C runtime, compiled with every warning an error and run under sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import pockc.runtime
from pockc.backends.native import table_source
from tests.runtime.toy import SOURCE, toy_plan

ROOT = Path(str(pockc.runtime.__file__)).resolve().parent
HERE = Path(__file__).parent
WARNINGS = (
    "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wvla",
    "-Wstrict-prototypes", "-Wswitch-enum", "-Werror",
)  # fmt: skip
COMPILER = shutil.which("gcc") or shutil.which("clang")

pytestmark = [
    pytest.mark.needs_cc,
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler with sanitizers"),
]


def build_and_run(
    folder: Path, sources: list[Path], sanitizers: str
) -> subprocess.CompletedProcess[str]:
    """Compile and run; with `setarch` where a sanitizer cannot live with random addresses."""
    program = folder / "program"
    flags = ["-D_POSIX_C_SOURCE=200809L", "-g", "-O1", f"-fsanitize={sanitizers}"]
    include = [f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}"]
    files = [str(s) for s in sources]
    command = [str(COMPILER), *WARNINGS, *flags, "-fno-sanitize-recover=all", *include, *files]
    subprocess.run([*command, "-o", str(program), "-lm", "-lpthread"], check=True)
    fixed = [shutil.which("setarch"), "-R"] if shutil.which("setarch") else []
    return subprocess.run(
        [*map(str, fixed), str(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def runtime_sources() -> list[Path]:
    return sorted((ROOT / "src").glob("*.c"))


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_the_c_interface_does_what_the_header_says(
    tmp_path: Path, micro_batches: int, sanitizers: str
) -> None:
    plan = tmp_path / "plan.c"
    plan.write_text(table_source(toy_plan(micro_batches, fail=True), micro_batches))
    sources = [*runtime_sources(), plan, SOURCE, HERE / "check_runtime.c"]
    done = build_and_run(tmp_path, sources, sanitizers)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_pool_runs_every_task_once_and_without_a_race(tmp_path: Path) -> None:
    sources = [ROOT / "src" / "pool.c", HERE / "check_pool.c"]
    done = build_and_run(tmp_path, sources, "thread")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_check_that_fails_is_reported(tmp_path: Path) -> None:
    wrong = tmp_path / "check_runtime.c"
    text = (HERE / "check_runtime.c").read_text()
    wrong.write_text(text.replace("info.inputs == 2", "info.inputs == 3"))
    plan = tmp_path / "plan.c"
    plan.write_text(table_source(toy_plan(fail=True)))
    done = build_and_run(tmp_path, [*runtime_sources(), plan, SOURCE, wrong], "undefined")
    assert done.returncode == 1
    assert "info.inputs == 3" in done.stdout


def test_the_header_is_also_cpp(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    source = tmp_path / "use.cpp"
    source.write_text(
        '#include "pock.h"\n'
        "int main() { pk_memory m; return pk_memory_needed(1, &m) == PK_OK ? 0 : 1; }\n"
    )
    flags = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only")
    subprocess.run([compiler, *flags, f"-I{ROOT / 'include'}", str(source)], check=True)
