"""Bad inputs as data: one edit of a valid call, the exception it must raise and the argument it must name."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch

from .generate import Inputs
from .implementation import Implementation, Permutation

ERRORS = {"TypeError": TypeError, "ValueError": ValueError}


@dataclass(frozen=True)
class BadInput:
    """`edit` changes the argument called `argument` of a call of `stage`; see `_edited` for the vocabulary."""

    id: str
    argument: str
    edit: str
    error: str
    names: str
    stage: str = "forward"


@cache
def cases() -> tuple[BadInput, ...]:
    """The entries of data/bad_inputs.toml."""
    text = (files("moe_conformance") / "data" / "bad_inputs.toml").read_text(encoding="utf-8")
    return tuple(BadInput(**entry) for entry in tomllib.loads(text)["bad_input"])


def applies(case: BadInput, stages: frozenset[str]) -> bool:
    """Whether an implementation of these stages can be called so: products and combine take its own permutation."""
    return {case.stage, "permute"} <= stages or (case.stage in stages and case.stage in ("route", "forward"))


def _edited(value: object, edit: str) -> object:
    verb, _, operand = edit.partition(":")
    if verb == "value":
        return json.loads(operand)
    if verb == "none":
        return None
    assert isinstance(value, torch.Tensor)
    changes: dict[str, Callable[[], object]] = {
        "list": value.tolist,
        "add_axis": lambda: value[None],
        "drop_axis": lambda: value[0],
        "drop_last": lambda: value.narrow(int(operand), 0, value.shape[int(operand)] - 1),
        "dtype": lambda: value.to(getattr(torch, operand)),
        "device": lambda: value.to(operand),
        # The host for a device's tensors; tensors of the host go to where there is no data at all.
        "elsewhere": lambda: value.to("meta" if value.device.type == "cpu" else "cpu"),
        "empty": lambda: value.narrow(int(operand), 0, 0),
        # The first row again and again, at stride 0: billions of rows in no memory.
        "repeat": lambda: value[:1].expand(int(operand), *value.shape[1:]),
        "transpose": lambda: value.mT,
        "sparse": value.to_sparse,
    }
    if verb not in changes:
        raise ValueError(f"unknown edit {edit!r}")
    return changes[verb]()


def _arguments(implementation: Implementation, inputs: Inputs, case: BadInput) -> tuple[Any, ...]:
    """The stage's arguments with the one edited: those in Inputs there, the others in their place of the call."""
    name, edit = case.argument, case.edit
    if case.stage in ("route", "forward"):
        return (inputs.replaced(**{name: _edited(getattr(inputs, name), edit)}),)
    experts = inputs.problem.experts
    tables: dict[str, dict[str, Any]] = {
        "permute": {"ids": inputs.ids, "num_experts": experts},
        "gate_up": {},
        "down": {"h": inputs.h},
        "combine": {"y": inputs.y, "weights": inputs.weights},
    }
    beside = tables[case.stage]
    if case.stage != "permute":
        beside["permutation"] = implementation.permute(inputs.ids, experts)
    if name == "permutation":
        beside[name] = _other_permutation(implementation, inputs, edit)
    elif name in beside:
        beside[name] = _edited(beside[name], edit)
    else:
        inputs = inputs.replaced(**{name: _edited(getattr(inputs, name), edit)})
    return tuple(beside.values()) if case.stage == "permute" else (inputs, *beside.values())


def _other_permutation(implementation: Implementation, inputs: Inputs, edit: str) -> Permutation:
    """A right permutation for other sizes: fewer tokens, or more experts."""
    verb, _, operand = edit.partition(":")
    if verb == "fewer_tokens":
        return implementation.permute(inputs.ids[: -int(operand)].contiguous(), inputs.problem.experts)
    if verb == "more_experts":
        return implementation.permute(inputs.ids, inputs.problem.experts + int(operand))
    raise ValueError(f"unknown edit of a permutation {edit!r}")


def attempt(implementation: Implementation, inputs: Inputs, case: BadInput) -> str | None:
    """Call the stage with the bad input. None when it is refused as listed and nothing was launched, else what happened
    instead."""
    arguments = _arguments(implementation, inputs, case)
    with counted_launches() as launched:
        outcome = _outcome(lambda: getattr(implementation, case.stage)(*arguments), case)
    if outcome is None and launched:
        return f"refused, but after {len(launched)} kernels were launched"
    return outcome


def _outcome(call: Callable[[], object], case: BadInput) -> str | None:
    try:
        call()
    except ERRORS[case.error] as error:
        if case.names in str(error):
            return None
        return f"the message does not name {case.names}: {error}"
    except Exception as error:
        return f"raised {type(error).__name__} instead of {case.error}: {error}"
    return f"{case.argument} with {case.edit} was accepted"


@contextmanager
def counted_launches() -> Iterator[list[object]]:
    """One entry for every compiled Triton kernel that is launched meanwhile.

    Nothing is counted without Triton, before its chains of launch hooks (3.5), and in its interpreter, which has none.
    """
    launched: list[object] = []
    try:
        from triton import knobs

        hooks = knobs.runtime.launch_enter_hook
        add, remove = hooks.add, hooks.remove
    except (ImportError, AttributeError):
        yield launched
        return
    count = launched.append
    add(count)
    try:
        yield launched
    finally:
        remove(count)
