"""What people call things acts on no terminal, page or path."""

import io
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppu.cli.log_lines import set_up_logging
from ppu.cli.table import fitted, with_reason
from ppu.core.errors import ConfigurationError
from ppu.core.names import checked_name, checked_text, shown, unseen
from ppu.core.notices import NoticeStream, SeenStream

ACTING = {
    "clears the screen": "a\x1b[2J",
    "sets the title": "\x1b]0;root\x07",
    "8-bit CSI": "a\x9b2J",
    "begins a line": "a\nerror: all is lost",
    "overwrites the line": "a\rb",
    "deletes": "a\x08b",
    "rings": "a\x07",
    "nothing": "a\x00b",
    "deletes too": "a\x7f",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "next line": "a\x85b",
    "right to left": "a\u202egpj.exe",
    "isolate": "a\u2066b",
    "mark": "a\u200fb",
    "no width": "a\u200bb",
    "joiner": "a\u200db",
    "byte order": "\ufeffa",
    "tag letters": "a\U000e0041",
    "no-break space": "a\u00a0b",
    "surrogate": "a\udc80b",
    "tab": "a\tb",
}
"""Texts that do something where they are printed, each its own kind."""

acting = st.sampled_from(list(ACTING.values())) | st.text(
    min_size=1, max_size=9
).filter(lambda text: not text.isprintable())


@pytest.mark.parametrize("text", ACTING.values(), ids=ACTING)
def test_name_that_acts_is_refused(text: str) -> None:
    """With the character and its place; the error itself shows nothing that acts."""
    for check in (checked_name, checked_text):
        with pytest.raises(ConfigurationError) as caught:
            check("campaign", text)

        assert str(caught.value).startswith("campaign: has the character U+")
        assert str(caught.value).isprintable()


@given(acting)
def test_name_that_acts_is_refused_whatever_it_is(text: str) -> None:
    """Not those that somebody thought of alone."""
    with pytest.raises(ConfigurationError) as caught:
        checked_name("key", text)

    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["", " a", "a ", "x" * 201])
def test_name_is_neither_empty_nor_padded_nor_endless(text: str) -> None:
    """Two names that look the same are the same."""
    with pytest.raises(ConfigurationError, match="key: "):
        checked_name("key", text)


@pytest.mark.parametrize(
    "name",
    ["LiCoO₂ at 800 °C", "Türing-4", "钛酸钡", "a/b", "=SUM(A1)", "µ", "naïve, yes"],
)
def test_name_in_any_script_is_taken(name: str) -> None:
    """Letters of all languages can be seen."""
    assert checked_name("campaign", name) == name
    assert shown(name) == name
    assert unseen(name) == ""


@given(st.text())
def test_what_is_shown_can_be_seen(text: str) -> None:
    """Each character that could act is its escape; the others are themselves."""
    told = shown(text)

    assert told.isprintable()
    assert told == text or not text.isprintable()
    assert shown(text, keep="\n").replace("\n", "").isprintable()


@given(st.text(), st.text())
def test_no_printer_lets_a_text_act(text: str, other: str) -> None:
    """Terminal, standard error, table and log alike; tables and logs keep to a line."""
    kept = io.StringIO()
    SeenStream(kept).write(text)
    lines = [kept.getvalue().replace("\n", "").replace("\t", "")]
    lines += [fitted(text), *with_reason(text, other).split("\n")]
    for line in lines:
        assert all(unicodedata.category(letter)[0] != "C" for letter in line)
        assert line.isprintable()


def test_notices_and_log_lines_show_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    """What an instrument answers reaches people's terminals through these two."""
    set_up_logging(verbose=False)
    logging.getLogger("ppu.link").warning("lost %s", "a\x1b[2J\nfake: b")
    NoticeStream().write("told \x1b[2J\u202e\n")

    assert capsys.readouterr().err == (
        "lost a\\x1b[2J\\nfake: b\ntold \\x1b[2J\\u202e\n"
    )


def test_reason_stands_below_its_line_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 60 columns a job still says why it waits."""
    line = f"{12:6}  {'queued':17} {'solid_state_synthesis':24} 2030-01-01 00:00:00  a"
    reason = "waits for furnace_1, which job 7 has until 14:30; " * 3
    monkeypatch.setenv("COLUMNS", "60")
    told = with_reason(line, reason).splitlines()

    assert all(len(part) <= 60 for part in told)
    assert " ".join("".join(told[1:]).split()) == " ".join("".join(told[1:]).split())
    assert "waits for furnace_1, which job 7 has until" in told[1]
    assert len(told) == 4
