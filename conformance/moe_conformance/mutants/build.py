"""A mutated copy of the kernels in a folder of its own."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable
from pathlib import Path

from .catalogue import Edit

PACKAGE = "tritonmoe"


class EditError(ValueError):
    """An edit does not fit the sources: its text is not there exactly once, or it changes nothing."""


def sources() -> Path:
    """The folder of the kernels' package, found without importing it. Raises ModuleNotFoundError."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{PACKAGE} is not installed and not on the path")
    return Path(spec.origin).parent


def edited(text: str, edit: Edit) -> str:
    """`text` with one edit made. Raises EditError."""
    count = text.count(edit.find)
    if count != 1:
        raise EditError(f"{edit.file}: {edit.find!r} occurs {count} times, not once")
    if edit.find == edit.replace:
        raise EditError(f"{edit.file}: {edit.find!r} is replaced by itself")
    return text.replace(edit.find, edit.replace)


def build(edits: Iterable[Edit], folder: Path) -> None:
    """Copy the package into `folder`, which goes first on sys.path, and make the edits there."""
    copy = folder / PACKAGE
    shutil.copytree(sources(), copy, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in edits:
        path = copy / edit.file
        path.write_text(edited(path.read_text(encoding="utf-8"), edit), encoding="utf-8")
