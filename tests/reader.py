"""Somebody who types what a page shows, line by line, in a folder of their own."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import pytest
import typer

from lab_processes import Lines
from ppu.cli.main import app, run_command
from ppu.core.labtime import stopwatch
from ppu.core.yaml_document import YamlDocument

__all__ = ["Block", "Reader", "Terminal", "blocks_of", "follow"]

ROOT: Final = Path(__file__).parents[1]
PATIENCE_WALL_S: Final = 240.0
_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A block of a page, as it stands there.

    Attributes:
        page: The page, from the root of the repository.
        line: Where it begins.
        language: What its fence says.
        text: What is in it, without the indent of a list.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def lines(self) -> list[str]:
        """Its lines that are not empty; one that ends with a backslash goes on."""
        whole = self.text.replace("\\\n", " ")
        return [line for line in whole.splitlines() if line.strip()]


def blocks_of(page: str) -> list[Block]:
    """Return every block of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start()) + 1,
            found["language"],
            textwrap.dedent(found["text"]),
        )
        for found in _FENCE.finditer(text)
    ]


Handler = Callable[[Block], None]


def follow(page: str, reader: Reader, special: Mapping[str, Handler]) -> None:
    """Do what each block of a page says, in order; none is left out.

    Shell is typed, Python run, tables of data are read as what they are.

    Args:
        page: The page.
        reader: Who does it.
        special: Blocks that want more, by how they begin.
    """
    used = set()
    for block in blocks_of(page):
        begin = next((start for start in special if block.text.startswith(start)), None)
        if begin is not None:
            used.add(begin)
            special[begin](block)
        elif block.language == "sh":
            for line in block.lines:
                reader.type(line)
        elif block.language == "python":
            code = compile(block.text, f"{page}:{block.line}", "exec")
            exec(code, {})  # noqa: S102 - our own page
        elif block.language == "yaml":
            YamlDocument(block.text, page)
        elif block.language == "toml":
            tomllib.loads(block.text)
        else:
            pytest.fail(f"{page}:{block.line}: how is a block of this kind tried?")
    assert used == set(special), "no such block any more"


@dataclass
class Terminal:
    """A terminal in which a program stays."""

    process: subprocess.Popen[str]
    lines: Lines
    news: threading.Condition

    def read(self, pattern: str, after: int = -1) -> re.Match[str]:
        """Wait for a line with *pattern*, behind a number of lines; return the match.

        Raises:
            AssertionError: If none comes; with what the program wrote.
        """
        with self.news:
            self.news.wait_for(
                lambda: self.lines.find(pattern, after) or self.lines.has_ended,
                PATIENCE_WALL_S,
            )
        line = self.lines.find(pattern, after)
        told = "\n".join(one.text for one in self.lines.all)
        assert line is not None, f"{pattern!r} is not in:\n{told}"
        match = re.search(pattern, line.text)
        assert match is not None
        return match

    def say(self, line: str) -> None:
        """Type a line that the program has asked for."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self, number: signal.Signals) -> int:
        """Send the program a signal; return its code when it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the program's code when it has ended by itself."""
        code = self.process.wait(PATIENCE_WALL_S)
        if self.process.stdin is not None:
            self.process.stdin.close()
        return code


@dataclass
class Reader:
    """Who types.

    Commands of ``ppu`` run in this process, by the function that the program calls;
    everything else in bash. All that was started has ended when its ``with`` has.

    Attributes:
        folder: Where they begin.
        words: What they type for words in capitals, and for what is theirs elsewhere.
    """

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    words: dict[str, str] = field(default_factory=dict)
    terminals: list[Terminal] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.monkeypatch.chdir(self.folder)
        self.monkeypatch.setenv("PWD", str(self.folder))
        self._command: Any = typer.main.get_command(app)
        return self

    def __exit__(self, *_: object) -> None:
        for terminal in self.terminals:
            for line in terminal.lines.all:  # cells outlive a guard that was killed
                found = re.search(r"the cell of process (\d+) runs", line.text)
                if found and _is_ours(int(found[1]), self.folder):
                    os.kill(int(found[1]), signal.SIGKILL)
            terminal.end(signal.SIGKILL)
            terminal.lines.join()

    def said(self, line: str) -> str:
        """Return a line with the reader's own words for the page's."""
        for word, own in self.words.items():
            line = re.sub(rf"(?<![\w/]){re.escape(word)}(?![\w])", own, line)
        return line

    def type(self, line: str, *codes: int) -> str:
        """Type a line; return what it prints. It must end with 0, or one of *codes*."""
        words = shlex.split(self.said(line), comments=True)
        if not words:
            return ""
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.monkeypatch.setenv(name, os.path.expandvars(value))
            return ""
        if words[0] == "cd":
            self._go(words[1])
            return ""
        if words[0] in ("ppu", ".venv/bin/ppu"):
            self.capsys.readouterr()
            code = run_command(
                self._command, words[1:], prog_name="ppu", obj=stopwatch()
            )
            printed = self.capsys.readouterr()
            out, told = printed.out, printed.err
        else:
            done = subprocess.run(  # noqa: S603 - what our own page says
                ["/bin/bash", "-euo", "pipefail", "-c", self.said(line)],
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_WALL_S,
            )
            code, out, told = done.returncode, done.stdout, done.stderr
            # `mkdir x && cd x` goes there in this terminal, too.
            for target in re.findall(r"&& cd (\S+)$", line):
                self._go(target)
        assert code in (codes or (0,)), f"{line}\ncode {code}\n{out}{told}"
        return out + told

    def _go(self, folder: str) -> None:
        self.monkeypatch.chdir(folder)
        self.monkeypatch.setenv("PWD", str(Path.cwd()))

    def stay(self, line: str) -> Terminal:
        """Type a line in a terminal of its own, and let the program stay there."""
        words = shlex.split(self.said(line), comments=True)
        assert words[0] == "ppu"
        process = subprocess.Popen(  # noqa: S603 - what our own page says
            [sys.executable, "-P", "-m", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        news = threading.Condition()
        terminal = Terminal(process, Lines(process.stdout, stopwatch(), news), news)
        self.terminals.append(terminal)
        return terminal

    def look(self, line: str) -> None:
        """Type a line whose program goes on, and stop it when it has said something."""
        terminal = self.stay(line)
        terminal.read(r"\w")
        assert terminal.end(signal.SIGINT) in (0, 130)


def _is_ours(pid: int, folder: Path) -> bool:
    """Return whether a process is a cell on a bench in *folder*."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        where = Path(f"/proc/{pid}/cwd").resolve()
    except OSError:
        return False
    return "cell" in words and where.is_relative_to(folder.resolve())
