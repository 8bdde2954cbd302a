"""What the commands share: options, and their values checked."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import torch
from rich.console import Console

from . import workloads
from .layer import DTYPES
from .workloads import Shape

EXIT_FAILED = 1
OUTPUT = Path("benchmark-results")

device_option = click.option("--device", "device_name", default="auto", show_default=True, help="cuda, cpu, or auto")
dtype_option = click.option("--dtype", default="bf16", show_default=True, type=click.Choice(list(DTYPES)))
output_option = click.option(
    "--output",
    default=OUTPUT,
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="folder of the results",
)


def console() -> Console:
    # Outside a terminal nothing is cut at 80 columns: logs are read later.
    return Console() if sys.stdout.isatty() else Console(width=200)


def say(text: str) -> None:
    click.echo(text)


def device(name: str) -> torch.device:
    """Raises a usage error where the device is missing, or a CPU is asked for without Triton's interpreter."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        if os.environ.get("TRITON_INTERPRET", "0") in ("", "0"):
            raise click.UsageError(
                "--device cpu needs Triton's interpreter: set TRITON_INTERPRET=1 (a smoke test only)"
            )
        from moe_conformance import interpreter

        interpreter.repair()
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index or "0").isdigit():
        raise click.UsageError(f"--device is cuda, cuda:N, cpu or auto, got {name!r} (ROCm's torch says cuda too)")
    if not torch.cuda.is_available():
        raise click.UsageError(f"no GPU is visible to torch, and --device {name} needs one")
    return torch.device("cuda", int(index or torch.cuda.current_device()))


def chosen_shapes(text: str | None) -> list[Shape]:
    if text is None:
        return workloads.default_shapes()
    known = workloads.shapes()
    try:
        return [known[name] for name in names(text)]
    except KeyError as error:
        raise click.UsageError(f"no shape {error}; there are {', '.join(known)}") from error


def names(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def numbers(text: str | None, default: list[int]) -> list[int]:
    """Comma-separated positive integers."""
    if text is None:
        return default
    try:
        values = [int(each) for each in names(text)]
    except ValueError as error:
        raise click.UsageError(f"not a list of numbers: {text!r}") from error
    if not values or min(values) < 1:
        raise click.UsageError(f"numbers must be positive: {text!r}")
    return values


def chosen_loads(text: str) -> list[str]:
    found = names(text)
    for load in found:
        try:
            workloads.exponent(load)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    return found
