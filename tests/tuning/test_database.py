"""The file of measured schedules: what it keeps, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pockc.backends.schedule import Schedule
from pockc.errors import UserError
from pockc.tuning.database import Database, Key, Record, read_database, write_database

HERE, THERE = "x86_64 skylake", "aarch64 a76"


def _database() -> Database:
    return Database(
        {
            Key("k_b", HERE, 2): Record(Schedule(vectors=3, pack=False), "g1", 10.0, 8.0),
            Key("k_a", HERE, 2): Record(Schedule(), "g1", 5.0, 5.0),
            Key("k_b", HERE, 1): Record(Schedule(form="long"), "g1", 20.0, 15.0),
            Key("k_b", THERE, 2): Record(Schedule(rows=4), "g1", 90.0, 80.0),
        }
    )


def test_what_is_written_is_read_and_sorted_and_has_equal_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    database = _database()
    write_database(one, database)
    assert read_database(one) == database
    write_database(two, Database(dict(reversed(database.records.items()))))
    assert one.read_bytes() == two.read_bytes()
    kernels = [entry["kernel"] for entry in json.loads(one.read_text())["kernels"]]
    assert kernels == sorted(kernels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.json", "two.json"]


def test_records_for_other_targets_and_threads_are_not_used() -> None:
    found = _database().schedules(HERE, 2)
    assert found == {"k_a": Schedule(), "k_b": Schedule(vectors=3, pack=False)}
    assert _database().schedules("riscv", 2) == {}


@pytest.mark.parametrize(
    ("text", "slug", "why"),
    [
        ("{", "bad-tuning-db", "it is not JSON"),
        ("[]", "bad-tuning-db", "does not say that its format is 'pock-tuning'"),
        ('{"format": "x"}', "bad-tuning-db", "does not say"),
        ('{"format": "pock-tuning", "format_version": 9}', "bad-tuning-db", "its version is 9"),
        ('{"format": "pock-tuning", "format_version": 1}', "bad-tuning-db", "no list"),
    ],
)
def test_what_is_no_database_is_refused(text: str, slug: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "db.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as found:
        read_database(path)
    assert f"[{slug}] {path}" in str(found.value)
    assert why in str(found.value)


@pytest.mark.parametrize(
    ("change", "slug", "why"),
    [
        ({"schedule": {"lookahead": 2}}, "unknown-choice", "no choice 'lookahead'"),
        ({"schedule": {"vectors": "3"}}, "unknown-choice", "must be of type int"),
        ({"schedule": {"vectors": True}}, "unknown-choice", "must be of type int"),
        ({"threads": "2"}, "bad-tuning-db", "entry 0 has no 'threads' of type int"),
        ({"default_us": None}, "bad-tuning-db", "entry 0 has no 'default_us'"),
    ],
)
def test_a_bad_entry_is_refused(
    change: dict[str, object], slug: str, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "db.json"
    write_database(path, _database())
    data = json.loads(path.read_text())
    data["kernels"][0].update(change)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(UserError) as found:
        read_database(path)
    assert f"[{slug}]" in str(found.value)
    assert why in str(found.value)


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no-tuning-db") as found:
        read_database(tmp_path / "db.json")
    assert "pockc tune MODEL -o" in str(found.value)
