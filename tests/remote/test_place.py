"""Places as scp writes them, and options of ssh."""

from __future__ import annotations

from pathlib import Path

import pytest

from pockc.errors import UserError
from pockc.remote import Place, SshOptions, parse_place


@pytest.mark.parametrize(
    ("text", "destination", "folder"),
    [
        ("pi@raspberrypi.local", "pi@raspberrypi.local", "."),
        ("pi", "pi", "."),
        ("pi@10.0.0.7:models", "pi@10.0.0.7", "models"),
        ("pi:~/models", "pi", "models"),
        ("pi:~", "pi", "."),
        ("pi:/srv/my models", "pi", "/srv/my models"),
        ("pi@[fe80::1]:m", "pi@fe80::1", "m"),
    ],
)
def test_places_are_read(text: str, destination: str, folder: str) -> None:
    assert parse_place(text) == Place(destination, folder)


@pytest.mark.parametrize("text", ["", ":m", "a b", "-oProxyCommand=x", "pi@-x", "a@b@c"])
def test_what_is_no_place_is_told(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_place(text)
    assert str(caught.value) == (
        f"[place] '{text}' names no place on another machine\n"
        "    fix  write it as user@host or user@host:dir"
    )


def test_options_become_words_of_ssh() -> None:
    options = SshOptions(2222, ("-i ~/key", "StrictHostKeyChecking=no"))
    words = ["-p", "2222", "-i", "~/key", "-o", "StrictHostKeyChecking=no"]
    assert options.words() == words
    assert Place("pi", "/srv/").path("m.pock") == "/srv/m.pock"
    assert Place("pi", ".").artifact(Path()) == Path.cwd().name
