"""Errors, and what is behind them."""

from ppu.core.errors import causes


def test_causes_end_when_an_error_stands_behind_itself() -> None:
    """One error that two jobs are told of is the context of its own context."""
    first, second = ValueError("a firing failed"), ValueError("so did its seat")
    first.__context__, second.__context__ = second, first

    assert list(causes(first)) == [first, second]


def test_causes_follow_what_was_meant_before_what_happened_to_be() -> None:
    """``raise ... from`` says what it was."""
    meant, by_chance, last = ValueError("1"), ValueError("2"), ValueError("3")
    last.__cause__, last.__context__ = meant, by_chance

    assert list(causes(last)) == [last, meant]
