"""libpock and pock-run for every target: small, of the right kind, and with an old libc."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pockc.backends.native import COMMAND, LIBRARY, NativeTarget, build_device
from pockc.backends.tvm import targets
from pockc.cli.app import run
from tests.programs import need_program

pytestmark = pytest.mark.needs_cc
TRIPLES = sorted({targets.get(n).triple for n in targets.NAMES if n != "host"})
MACHINES = {"x86_64": 62, "aarch64": 183, "armv7l": 40}
LARGEST_BYTES = 200_000


def _machine(program: Path) -> int:
    return int.from_bytes(program.read_bytes()[18:20], "little")


@pytest.mark.parametrize("triple", TRIPLES)
def test_the_programs_are_small_and_of_their_machine(triple: str, tmp_path: Path) -> None:
    built = build_device(tmp_path, NativeTarget.of_llvm(triple))
    assert [p.name for p in built] == [LIBRARY, COMMAND]
    assert sum(p.stat().st_size for p in built) < LARGEST_BYTES
    for program in built:
        assert _machine(program) == MACHINES[triple.partition("-")[0]]
        wanted = {
            tuple(map(int, v.split(b".")))
            for v in re.findall(rb"\0GLIBC_([\d.]+)(?=\0)", program.read_bytes())
        }
        assert wanted, "it needs no libc?"
        assert max(wanted) <= (2, 17)


def test_a_board_runs_them(tmp_path: Path) -> None:
    need_program("ld-linux-aarch64.so.1")
    _, command = build_device(tmp_path, NativeTarget.of_llvm("aarch64-linux-gnu"))
    words = [need_program("qemu-aarch64-static"), "-L", "/usr/aarch64-linux-gnu", str(command)]
    done = subprocess.run([*words, "info", "none.pock"], capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"[no-artifact] there is no none.pock\n")


def test_the_programs_and_headers_are_written_on_request(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["runtime", "--target", "rpi4", "-o", str(tmp_path / "device")]) == 0
    names = [LIBRARY, COMMAND, "pock.h", "pock_core.h"]
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [f"{tmp_path / 'device' / n}" for n in names]
    assert _machine(tmp_path / "device" / COMMAND) == MACHINES["aarch64"]
    # All that a program of one's own needs is there.
    source = tmp_path / "use.c"
    source.write_text('#include "pock.h"\nint main(void) { return pock_abi_version() == 0; }\n')
    from pockc.backends.native.zig import run_zig

    where = ("-I", str(tmp_path / "device"), str(tmp_path / "device" / LIBRARY))
    run_zig(("cc", "-target", "aarch64-linux-gnu", str(source), *where, "-o", "use"), tmp_path)
