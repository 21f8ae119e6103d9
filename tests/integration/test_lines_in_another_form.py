"""Line-oriented addresses: sets and commands whose answers take any form, or none."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from ppu.core.errors import (
    InstrumentError,
    MalformedReply,
    ReplyTimeout,
    TransportError,
)
from ppu.devices import Query
from ppu.transports.line import LineClient, LineProbe
from ppu.transports.tcp import TcpConnection
from ppu_simulators.fronts.conversation import Answer
from ppu_simulators.fronts.tcp import TcpFront

Play = Callable[[Coroutine[Any, Any, Any]], Any]


def number(lines: list[str]) -> float:
    """Return the number in an answer such as ``25.3 1``."""
    text = lines[-1].split()[0] if lines[-1].split() else ""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise MalformedReply(f"{lines[-1]!r} is no number") from None


def accept(*words: str) -> Callable[[list[str]], None]:
    """Return what accepts an answer that is one of *words*."""

    def parse(lines: list[str]) -> None:
        if lines[-1].startswith(("?", "-", "ERR")):
            raise InstrumentError(f"it refused: {lines[-1]}", lines[-1])
        if lines[-1] not in words:
            raise MalformedReply(f"{lines[-1]!r} is none of {words}")

    return parse


class LineInstrument:
    """Keeps one setpoint, and answers as a row of the table says.

    Args:
        set_word: What a set begins with.
        answer: What a set is answered; None if it is not. ``{}`` is the new value.
        takes: Whether it takes the value.
        end: What ends each line that it sends.
        reads: How it shows the value.
    """

    def __init__(
        self,
        set_word: str,
        answer: str | None,
        *,
        takes: bool = True,
        end: str = "\r\n",
        reads: str = "{:.1f}",
    ) -> None:
        self.value = 20.0
        self.heard: list[str] = []
        self._set_word = set_word
        self._answer = answer
        self._takes = takes
        self._end = end
        self._reads = reads

    def receive(self, data: bytes, time: float) -> Iterable[Answer]:
        """Take lines; answer them."""
        del time
        for line in data.decode().splitlines():
            self.heard.append(line)
            said: str | None = self._reads.format(self.value)
            if line.startswith(self._set_word):
                if self._takes and line != self._set_word:
                    self.value = float(line.removeprefix(self._set_word))
                said = self._answer and self._answer.format(self.value)
            elif line == "ID?":
                said = "ID 1"
            if said is not None:
                yield Answer((said + self._end).encode(), 0.01)


@dataclass(frozen=True)
class Form:
    """How an instrument takes a value.

    Args:
        name: What does it so.
        instrument: Its words.
        address: How it is declared.
        error: What is raised if it does not go well.
        match: What is said then.
        client: How the client is made.
    """

    name: str
    instrument: dict[str, Any]
    address: dict[str, Any]
    error: type[Exception] | None = None
    match: str = ""
    client: dict[str, Any] | None = None


READ_BACK = {"is_answered": False}
OK = {"set_parse": accept("OK")}
SILENT = {"silence_s": 0.2}

FORMS = [
    Form("the value itself", {"answer": "{:.1f}"}, {}),
    Form("the value and its channel", {"answer": "{:.1f} 1"}, {}),
    Form("the value with a sign", {"answer": "{:+.1f}", "reads": "{:+.2f}"}, {}),
    Form("a word", {"answer": "OK"}, OK),
    Form("a prompt", {"answer": ">"}, {"set_parse": accept(">")}),
    Form("an empty line", {"answer": ""}, {"set_parse": accept("")}),
    Form("two lines", {"answer": "set\r\nOK"}, {**OK, "set_is_last": "OK".__eq__}),
    Form("a refusal", {"answer": "?"}, OK, InstrumentError, "SP 37.5: it refused"),
    Form("an error", {"answer": "-08 X"}, OK, InstrumentError, "-08 X"),
    Form("nonsense", {"answer": "\x07"}, OK, MalformedReply, "is none of"),
    Form("a word, declared a value", {"answer": "OK"}, {}, MalformedReply, "no number"),
    Form("nothing", {"answer": None}, READ_BACK),
    Form("nothing, shown coarsely", {"answer": None, "reads": "{:.0f}"}, {
        **READ_BACK, "decimals": 0
    }),
    Form("nothing, and not taken", {"answer": None, "takes": False}, READ_BACK,
         InstrumentError, "SP 37.5 was sent, but SP\\? says 20.0"),
    Form("something, declared as nothing", {"answer": "OK"}, READ_BACK,
         MalformedReply, "which is not answered"),
    Form("nothing, declared as something", {"answer": None}, OK, ReplyTimeout, "37.5"),
    Form("a word without an end", {"answer": "OK", "end": ""}, OK, client=SILENT),
    Form("a value without an end", {"answer": "{:.1f}", "end": ""}, {}, client=SILENT),
    Form("a refusal without an end", {"answer": "?", "end": ""}, OK,
         InstrumentError, "it refused", client=SILENT),
    Form("nothing, reads without an end", {"answer": None, "end": ""}, READ_BACK,
         client=SILENT),
    Form("a line with its end, none expected", {"answer": "OK"}, OK, client=SILENT),
    Form("CR only", {"answer": "OK", "end": "\r"}, OK, client={"answer_end": b"\r"}),
    Form("CR LF where CR is enough", {"answer": "OK"}, OK,
         client={"answer_end": b"\r"}),
    Form("nothing, with a probe", {"answer": None}, READ_BACK,
         client={"probe": LineProbe("ID?", "ID 1".__eq__)}),
]  # fmt: skip


def on_line(
    play: Play,
    instrument: LineInstrument,
    scene: Callable[[LineClient], Coroutine[Any, Any, None]],
    **options: Any,
) -> None:
    """Play *scene* with a client of *instrument*."""

    async def run() -> None:
        front = TcpFront(instrument)
        host, port = await front.start()
        connection = TcpConnection(transport="tcp", host=host, port=port)
        client = LineClient("bath", connection, **options)
        try:
            await scene(client)
        finally:
            await client.link.close()
            await asyncio.sleep(0.1)
            await front.stop()

    play(run())


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_value_is_set_whatever_form_the_answer_has(play: Play, form: Form) -> None:
    """It is set and sent once, or an error says why not; the next read is right."""
    instrument = LineInstrument("SP ", **form.instrument)
    address = Query("SP?", number, set_command="SP {}", **form.address)

    async def scene(client: LineClient) -> None:
        assert await address.read(client) == pytest.approx(20.0, abs=0.6)
        if form.error is None:
            await address.write(client, 37.5)
            assert instrument.value == 37.5
        else:
            with pytest.raises(form.error, match=form.match):
                await address.write(client, 37.5)
        assert instrument.heard.count("SP 37.5") == 1
        assert await address.read(client) == pytest.approx(instrument.value, abs=0.6)

    on_line(play, instrument, scene, **(form.client or {}))


@pytest.mark.parametrize(
    ("answer", "is_answered", "error"),
    [
        ("OK", True, None),
        (None, False, None),
        ("?", True, InstrumentError),
        ("!", True, MalformedReply),
        (None, True, TransportError),
        ("OK", False, MalformedReply),
    ],
)
def test_command_is_carried_out_whatever_form_the_answer_has(
    play: Play, answer: str | None, is_answered: bool, error: type[Exception] | None
) -> None:
    """It is sent once; what is not as declared is an error."""
    instrument = LineInstrument("START", answer)
    address = Query("START", accept("OK"), is_answered=is_answered)

    async def scene(client: LineClient) -> None:
        if error is None:
            await address.execute(client)
        else:
            with pytest.raises(error, match="START"):
                await address.execute(client)
        assert instrument.heard == ["START"]

    on_line(play, instrument, scene)
