"""Bad inputs as data: one edit of a valid call, the exception it must raise and the argument it must name."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch

from .generate import Inputs
from .implementation import Guarded

ERRORS = {"TypeError": TypeError, "ValueError": ValueError}


@dataclass(frozen=True)
class BadInput:
    """`edit` changes the input called `argument`; see `_edited` for the vocabulary."""

    id: str
    argument: str
    edit: str
    error: str
    names: str


@cache
def cases() -> tuple[BadInput, ...]:
    """The entries of data/bad_inputs.toml."""
    text = (files("moe_conformance") / "data" / "bad_inputs.toml").read_text(encoding="utf-8")
    return tuple(BadInput(**entry) for entry in tomllib.loads(text)["bad_input"])


def _edited(value: object, edit: str) -> object:
    verb, _, operand = edit.partition(":")
    if verb == "value":
        return int(operand)
    if verb == "none":
        return None
    assert isinstance(value, torch.Tensor)
    if verb == "list":
        return value.tolist()
    if verb == "add_axis":
        return value[None]
    if verb == "drop_last":
        return value.narrow(int(operand), 0, value.shape[int(operand)] - 1)
    if verb == "dtype":
        return value.to(getattr(torch, operand))
    if verb == "device":
        return value.to(operand)
    if verb == "empty":
        return value.narrow(int(operand), 0, 0)
    raise ValueError(f"unknown edit {edit!r}")


def attempt(implementation: Guarded, inputs: Inputs, case: BadInput) -> str | None:
    """Call forward with the bad input. None when it is refused as listed, else what happened instead."""
    edited = _edited(getattr(inputs, case.argument), case.edit)
    try:
        implementation.unguarded.forward(inputs.replaced(**{case.argument: edited}))
    except ERRORS[case.error] as error:
        if case.names in str(error):
            return None
        return f"the message does not name {case.names}: {error}"
    except Exception as error:
        return f"raised {type(error).__name__} instead of {case.error}: {error}"
    return f"{case.argument} with {case.edit} was accepted"
