"""Where a board is: what may stand in --target, and what never reaches a command line."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.errors import UsageError
from edgedistill.evidence.board.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ssh://pi@raspberrypi.local", Address("raspberrypi.local", "pi")),
        ("ssh://board", Address("board")),
        ("ssh://me@10.0.0.7:2222", Address("10.0.0.7", "me", 2222)),
        ("ssh://me@[fe80::1%25eth0]:22".replace("%25", "%"), Address("fe80::1%eth0", "me", 22)),
        ("ssh://me@board/", Address("board", "me")),
        ("ssh://me@board/mnt/ssd/my bundle", Address("board", "me", None, "/mnt/ssd/my bundle")),
        ("ssh://me@board/mnt/a%0A%27b", Address("board", "me", None, "/mnt/a\n'b")),
        ("ssh://me@board/~/bundle", Address("board", "me", None, "~/bundle")),
        ("ssh://first%20last@board", Address("board", "first last")),
    ],
)
def test_an_address_is_taken_apart(text: str, found: Address) -> None:
    assert parse_address(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("board", "only boards over ssh"),
        ("scp://board", "only boards over ssh"),
        ("ssh://", "the host is missing"),
        ("ssh:///tmp", "the host is missing"),
        ("ssh://-oProxyCommand=touch x", "not a name"),
        ("ssh://me@-oProxyCommand=x", "not a name"),
        ("ssh://me@a b", "not a name"),
        ("ssh://me@$(touch x)", "not a name"),
        ("ssh://me@board;touch x", "not a name"),
        ("ssh://-lroot@board", "no user has such a name"),
        ("ssh://$(touch x)@board", "no user has such a name"),
        ("ssh://a%60id%60@board", "no user has such a name"),
        ("ssh://a%0Ab@board", "no user has such a name"),
        ("ssh://a%3Bid@board", "no user has such a name"),
        ("ssh://a%22@board", "no user has such a name"),
        ("ssh://me:secret@board", "a password has no place here"),
        ("ssh://me@board:70000", "out of range"),
        ("ssh://me@board:x", "port"),
        ("ssh://me@board/a?b", "%3F"),
        ("ssh://me@board/a#b", "%3F"),
        ("ssh://me@board/a\nb", "cannot be printed"),
        ("ssh://me@board/a%00b", "zero byte"),
    ],
)
def test_an_address_that_no_board_has_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    said = str(caught.value)
    assert words in said and "ssh://user@board" in said and "\n" not in said
    assert "secret" not in said


@given(st.text(max_size=60), st.text(max_size=60))
def test_what_is_let_through_is_no_option_and_no_word_of_a_shell(front: str, back: str) -> None:
    for text in (front, f"ssh://{front}", f"ssh://{front}@{back}", f"ssh://{front}@board{back}"):
        try:
            found = parse_address(text)
        except UsageError:
            continue
        for word in (found.host, *([found.user] if found.user is not None else [])):
            assert word and word[0] != "-" and word.isprintable()
            assert not set(word) & set("'`\"$;&<>|(){}\\")


def test_a_command_to_paste_is_quoted_for_both_shells() -> None:
    address = Address("board", "me", 2222, "/a b")
    words = shlex.split(address.command("ls", shlex.quote("/a 'b")))
    assert words[:4] == ["ssh", "-p", "2222", "me@board"]
    assert shlex.split(words[4]) == ["ls", "/a 'b"]
