"""What the commands share: options, a console, and a backend and an implementation that are there or a clean exit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from rich.console import Console

from . import interpreter
from .backends import NAMES, Backend, BackendMissing, architecture, resolve, triton_environment
from .implementation import Implementation, UnknownImplementation, load
from .waivers import Waivers, WaiversInvalid
from .waivers import read as read_waivers
from .waivers import today as utc_today

EXIT_FAILED = 1

implementation_option = click.option(
    "--implementation", default="tritonmoe", show_default=True, metavar="NAME|module:factory", help="what is judged"
)
backend_option = click.option(
    "--backend", default="auto", show_default=True, type=click.Choice([*NAMES, "auto"]), help="where it runs"
)
waivers_option = click.option(
    "--waivers",
    "waivers_file",
    type=click.Path(path_type=Path),
    help="known failures [default: ./waivers.toml, if any]",
)


def waivers_of(path: Path | None, implementation: str, backend: Backend) -> Waivers | None:
    """The waivers of a file, or None without one. Exits with code 2 where the file is not right in every entry."""
    if path is None:
        path = Path("waivers.toml")
        if not path.exists():
            return None
    try:
        entries = read_waivers(path)
    except WaiversInvalid as error:
        raise click.UsageError(str(error)) from error
    return Waivers(entries, implementation, backend.platform, architecture(backend), utc_today(), path)


def screen() -> Console:
    # Outside a terminal lines are not cut at 80 columns: logs are searched, and problems are long.
    return Console() if sys.stdout.isatty() else Console(width=160)


def prepared(backend_name: str, implementation_name: str) -> tuple[Backend, Implementation]:
    """Backend and implementation, or a clean exit with code 2."""
    try:
        backend = resolve(backend_name)
        # Before Triton is imported: kernels become interpreted or compiled functions at import.
        os.environ.update(triton_environment(backend.name))
        backend.start()
        sys.path.insert(0, os.getcwd())  # module:factory names are looked up where the user stands
        implementation = load(implementation_name)
    except (BackendMissing, UnknownImplementation, ImportError, TypeError) as error:
        raise click.UsageError(str(error)) from error
    if backend.platform not in implementation.declaration.backends:
        raise click.UsageError(f"{implementation_name} does not run on {backend.name}")
    return backend, implementation


def ready(backend: str, implementation: str) -> tuple[Backend, Implementation]:
    """Backend and implementation, the interpreter's self-check passed."""
    found, made = prepared(backend, implementation)
    if problems := interpreter_problems(made, found):
        raise click.UsageError("; ".join(problems))
    return found, made


def interpreter_problems(implementation: Implementation, backend: Backend) -> list[str]:
    if not backend.interprets or not implementation.declaration.uses_triton:
        return []
    return [f"the interpreter's self-check failed: {text}" for text in interpreter.self_check()]
