"""``ppu new driver``: driver, simulator and tests of an instrument, to start from."""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from ppu._version import __version__
from ppu.core.errors import ConfigurationError

new_app = typer.Typer(
    help="Write the files of something new.",
    epilog="Example: ppu new driver ika_ret --wire serial --into ..",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_LONGEST_NAME: Final = 28
_LONGEST_LINE: Final = 88
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")


class Wire(StrEnum):
    """What an instrument is reached through."""

    MODBUS_RTU = "modbus-rtu"
    MODBUS_TCP = "modbus-tcp"
    SERIAL = "serial"
    TCP = "tcp"
    HTTP = "http"


@dataclass(frozen=True)
class _Path:
    """What the templates say of one wire.

    Args:
        language: What it is, in words.
        connection: Class of the driver's connection.
        hardware: What stands under ``hardware`` in the lab file.
    """

    language: str
    connection: str
    hardware: str


_SERIAL: Final = (
    "{transport: serial, port: /dev/serial/by-id/usb-x, baudrate: 9600, parity: none}"
)
_PATHS: Final[Mapping[Wire, _Path]] = {
    Wire.MODBUS_RTU: _Path("Modbus RTU on a serial line", "SerialConnection", _SERIAL),
    Wire.MODBUS_TCP: _Path(
        "Modbus TCP", "TcpConnection", "{transport: tcp, host: 192.0.2.20, port: 502}"
    ),
    Wire.SERIAL: _Path("lines of text on a serial line", "SerialConnection", _SERIAL),
    Wire.TCP: _Path(
        "lines of text over TCP",
        "TcpConnection",
        "{transport: tcp, host: 192.0.2.20, port: 4000}",
    ),
    Wire.HTTP: _Path(
        "JSON over HTTP",
        "HttpConnection",
        '{transport: http, url: "http://192.0.2.20:8080"}',
    ),
}

_KINDS: Final[Mapping[str | None, str]] = {None: "hot_plate", "Balance": "balance"}
"""Which example is written for a capability; without one, a hot plate."""


def attach(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.add_typer(new_app, name="new")


@new_app.callback()
def new() -> None:
    """Write the files of something new."""


@new_app.command(epilog="Example: ppu new driver ika_ret --wire serial --into ..")
def driver(
    name: Annotated[str, typer.Argument(help="maker_model, such as ika_ret.")],
    wire: Annotated[Wire, typer.Option(help="What the instrument is reached through.")],
    provides: Annotated[
        str | None,
        typer.Option(help="Capability to provide: Balance; by default none."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="Write a package of its own, NAME, into this directory."),
    ] = None,
    here: Annotated[
        bool,
        typer.Option("--here", help="Write modules of PPU's own, in its checkout."),
    ] = False,
) -> None:
    """Write driver, simulator, tests and lab entry of a small instrument that works.

    Inside PPU's checkout they become modules of PPU, elsewhere a package NAME.
    """
    if here and into is not None:
        raise ConfigurationError("--here and --into: give one of them")
    example = Example(name, wire, provides)
    checkout = None if into is not None else find_checkout(Path.cwd())
    if here and checkout is None:
        raise ConfigurationError(
            "--here: this is no checkout of PPU (no drivers/ppu_drivers here or above)"
        )
    if checkout is not None:
        write_files(example.modules(checkout))
        _tell_modules(example, checkout)
        return
    folder = (Path() if into is None else into) / name
    if folder.exists():
        raise ConfigurationError(f"{folder}: exists already; nothing was written")
    files = example.package(folder)
    _check_free(name)
    write_files(files)
    _tell_package(example, folder)


# -- what is written -------------------------------------------------------------------


class Example:
    """A small instrument that works, as files to start from.

    Args:
        name: Maker and model, in snake case.
        wire: What it is reached through.
        provides: Capability that its driver has, if any.

    Raises:
        ConfigurationError: If the name cannot be used, or no example provides that.
    """

    def __init__(self, name: str, wire: Wire, provides: str | None = None) -> None:
        check_name(name)
        self.name = name
        self.wire = wire
        self._kind = _kind_for(provides)
        maker, *model = name.split("_")
        path = _PATHS[wire]
        self._values = {
            "name": name,
            "cls": "".join(word[:1].upper() + word[1:] for word in name.split("_")),
            "maker": maker.capitalize(),
            "model": " ".join(model).upper(),
            "wire": wire.value,
            "language": path.language,
            "connection": path.connection,
            "hardware": path.hardware,
            "distribution": name.replace("_", "-"),
            "ppu_version": ".".join(__version__.split(".")[:2]),
            "tolerance_g": "0.05" if "modbus" in wire else "0.002",
        }

    def package(self, folder: Path) -> dict[Path, str]:
        """Return the files of a package of its own in *folder*, by path."""
        values = self._values | {
            "driver_module": f"{self.name}.driver",
            "simulator_module": f"{self.name}.simulator",
        }
        source = folder / "src" / self.name
        lab = self._lab(values)
        return {
            folder / "pyproject.toml": self._render("package/pyproject.toml", values),
            folder / "README.md": self._render("package/README.md", values),
            folder / ".gitignore": self._render("package/gitignore", values),
            source / "__init__.py": self._render("package/init.py", values),
            source / "py.typed": "",
            source / "driver.py": self._render(f"{self._kind}/driver.py", values),
            source / "simulator.py": self._render(f"{self._kind}/simulator.py", values),
            source / "labs" / "__init__.py": self._render(
                "package/labs_init.py", values
            ),
            source / "labs" / f"{self.name}.yaml": self._render(
                "package/lab.yaml", values | {"entry": lab}
            ),
            folder / "tests" / f"test_{self.name}.py": self._test(values, "package"),
        }

    def modules(self, checkout: Path) -> dict[Path, str]:
        """Return the modules of a *checkout* of PPU, by path."""
        values = self._module_values()
        instruments = checkout / "simulators" / "ppu_simulators" / "instruments"
        drivers = checkout / "drivers" / "ppu_drivers"
        tests = checkout / "tests" / "integration"
        return {
            drivers / f"{self.name}.py": self._render(
                f"{self._kind}/driver.py", values
            ),
            instruments / f"{self.name}.py": self._render(
                f"{self._kind}/simulator.py", values
            ),
            tests / f"test_{self.name}.py": self._test(values, "here"),
        }

    def lab_entry(self) -> str:
        """Return what a lab file needs of an instrument of PPU's own."""
        return self._lab(self._module_values())

    def _module_values(self) -> dict[str, str]:
        return self._values | {
            "driver_module": f"ppu_drivers.{self.name}",
            "simulator_module": f"ppu_simulators.instruments.{self.name}",
        }

    def _lab(self, values: Mapping[str, str]) -> str:
        """Return device, locations and containers as they stand in a lab file."""
        parts = [self._render(f"{self._kind}/lab.yaml", values)]
        if self._kind == "balance":
            parts.append(self._render("balance/places.yaml", values))
        return "\n".join(fold(line) for line in "".join(parts).splitlines())

    def _test(self, values: Mapping[str, str], where: str) -> str:
        module, cls = values["driver_module"], values["cls"]
        has_lines = self.wire in (Wire.SERIAL, Wire.TCP)
        own, errors = [cls], ["InstrumentError"]
        tools = ["DeviceContract", "SimulatorContract"]
        if self._kind == "balance":
            errors.append("LimitError")
        if has_lines:
            tools.append("check_codec")
            is_balance = self._kind == "balance"
            own += ["Weight", "parse_weight"] if is_balance else ["number_of"]
        own.sort(key=lambda word: (word.islower(), word))
        imports = [
            f"from ppu.core.errors import {', '.join(errors)}",
            f"from ppu.testing import {', '.join(tools)}",
            "from ppu.transports.link import Exchange",
            "from ppu.cell.lab import OpenLab",
            # Long names would not fit on one line.
            f"from {module} import (\n    " + ",\n    ".join(own) + ",\n)",
        ]
        if self._kind == "hot_plate":
            imports.append("from ppu.core.labtime import running_loop")
            imports.append(
                f"from {values['simulator_module']} import (\n    Simulated{cls},\n)"
            )
        more = {"imports": "\n".join(sorted(imports)), "entry": self._lab(values)}
        return self._render(f"{self._kind}/test.py", {**values, **more}, where)

    def _render(self, template: str, values: Mapping[str, str], where: str = "") -> str:
        return render(read_template(template), values, {self.wire.value, where})


def read_template(name: str) -> str:
    """Return the text of a template, such as ``package/README.md``."""
    from importlib.resources import files

    folder, _, file = name.partition("/")
    path = files("ppu.cli").joinpath("templates", folder, f"{file}.tmpl")
    return path.read_text(encoding="utf-8")


def render(template: str, values: Mapping[str, str], chosen: set[str]) -> str:
    r"""Return *template* with ``$name`` replaced, and only the chosen blocks of it.

    A line ``%% word word`` begins a block that is for these choices only, ``%%``
    alone one that is for all.

    Example:
        >>> render("a\n%% tcp\nb $x\n%%\nc\n", {"x": "1"}, {"serial"})
        'a\nc\n'
    """
    from string import Template

    kept = []
    is_wanted = True
    for line in template.splitlines(keepends=True):
        if line.startswith("%%"):
            words = line[2:].split()
            is_wanted = not words or not chosen.isdisjoint(words)
        elif is_wanted:
            kept.append(line)
    return Template("".join(kept)).substitute(values)


def fold(line: str) -> str:
    r"""Return a line of YAML, as two if it is too long.

    Example:
        >>> fold("  key: " + "x" * 82) == "  key:\n    " + "x" * 82
        True
    """
    if len(line) <= _LONGEST_LINE:
        return line
    key, _, value = line.partition(": ")
    indent = " " * (len(key) - len(key.lstrip()) + 2)
    return f"{key}:\n{indent}{value}"


# -- checks ----------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Refuse a name that cannot be that of an instrument's module.

    Raises:
        ConfigurationError: If it is no ``maker_model`` in snake case, or pytest would
            take it for tests.
    """
    if keyword.iskeyword(name):
        raise ConfigurationError(f"'{name}' is a word of Python; say maker_model")
    if name.startswith("test_"):
        raise ConfigurationError(
            f"'{name}' would be taken for tests by pytest; say maker_model"
        )
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST_NAME:
        raise ConfigurationError(
            f"'{name}' should be maker_model: small letters, digits and at least one "
            f"'_', such as ika_ret; at most {_LONGEST_NAME} characters"
        )


def _kind_for(provides: str | None) -> str:
    """Return the example that provides what was asked.

    Raises:
        ConfigurationError: If there is none.
    """
    from ppu.core.capabilities import CAPABILITIES
    from ppu.core.errors import nearest

    if provides in _KINDS:
        return _KINDS[provides]
    if provides not in CAPABILITIES:
        hint = nearest(str(provides), CAPABILITIES)
        raise ConfigurationError(f"--provides {provides}: no such capability; {hint}")
    raise ConfigurationError(
        f"--provides {provides}: there is an example of Balance only. Leave --provides "
        f"away, let the driver inherit from ppu.core.capabilities.{provides} and write "
        f"its methods: each says there what it does. `provides: [{provides}]` in the "
        "lab file has them checked."
    )


def _check_free(name: str) -> None:
    """Refuse the name of a package, or of a driver of PPU's, that is there already.

    Raises:
        ConfigurationError: If there is one.
    """
    from importlib.util import find_spec

    if find_spec("ppu_drivers") and find_spec(f"ppu_drivers.{name}"):
        raise ConfigurationError(
            f"PPU has a driver 'ppu_drivers.{name}' already: use it, or say another "
            "name; nothing was written"
        )
    if find_spec(name) is not None:
        raise ConfigurationError(
            f"a Python package '{name}' is installed already; nothing was written"
        )


def find_checkout(start: Path) -> Path | None:
    """Return the checkout of PPU that *start* lies in, if it lies in one."""
    for folder in (start, *start.parents):
        if (folder / "drivers" / "ppu_drivers" / "__init__.py").is_file():
            return folder
    return None


def write_files(files: Mapping[Path, str]) -> None:
    """Write all *files*, or none if one of them exists.

    Raises:
        ConfigurationError: If one exists, or cannot be written.
    """
    existing = [str(path) for path in files if path.exists()]
    if existing:
        raise ConfigurationError(
            f"{', '.join(existing)}: exists already; nothing was written"
        )
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as exc:
            raise ConfigurationError(f"{path}: {exc.strerror}") from exc
        typer.echo(f"wrote {path}")


# -- what comes next -------------------------------------------------------------------


def _tell_package(example: Example, folder: Path) -> None:
    typer.echo(
        textwrap.dedent(
            f"""
            next:
              cd {folder}
              pip install -e '.[test]'
              pytest
              ppu read --lab {example.name} --target twin
            then: correct maker and model in the driver's facts, and go on with
              docs/how-to/add-an-instrument.md"""
        )
    )


def _tell_modules(example: Example, checkout: Path) -> None:
    typer.echo("\nfor a lab file:\n\n" + example.lab_entry())
    typer.echo(
        f"\nnext:\n  pytest {checkout / 'tests' / 'integration'}/"
        f"test_{example.name}.py\nthen: docs/how-to/add-an-instrument.md"
    )
