"""Checking the corpus: files, inputs, the torch oracle, and an implementation. Needs no mpmath."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .. import oracle
from ..backends import Backend
from ..formats import FORMATS, Format
from ..generate import Inputs, generate
from ..implementation import Declaration, Guarded, Implementation, ImplementationError, Permutation
from ..kinds import KINDS
from ..problem import Problem
from .corpus import Entry, concerned, label, read_answers, roundings
from .inputs import digest, tensors_of
from .oracle_check import against_oracle

KIND_OF = {"route": "route", "permute": "permute", "gate_up": "experts", "down": "experts", "combine": "combine"}
# What the golden radii allow a product (arithmetic.py).
LARGEST_KAPPA = 2.0


@dataclass
class Checked:
    """One entry: what does not agree, how far the oracle's midpoint is off, and how the implementation fared. `worst`
    is its largest error over the golden bound; `left_out` says why it was not compared."""

    entry: Entry
    faults: list[str] = field(default_factory=list)
    difference: float = 0.0
    worst: float = 0.0
    left_out: str = ""


def check_entry(folder: Path, entry: Entry, implementation: Implementation, backend: Backend) -> Checked:
    """Everything about one entry. Raises CorpusError where its file cannot be used."""
    answers, problem = read_answers(folder, entry), entry.parsed()
    found = Checked(entry)
    whole = entry.stage == "forward"
    inputs = generate(problem, backend.device, whole_forward=whole)
    made = {name: digest(tensor) for name, tensor in tensors_of(entry.stage, inputs).items()}
    for name in sorted(made.keys() | entry.inputs.keys()):
        if made.get(name) != entry.inputs.get(name):
            found.faults.append(f"generate() makes other bytes of {name} than those the answers belong to")
    reference = generate(problem, "cpu", whole_forward=whole) if backend.is_gpu else inputs
    agreement = against_oracle(entry.stage, reference, answers)
    found.difference = agreement.difference
    found.faults += [f"oracle: {fault}" for fault in agreement.faults]
    found.left_out = _left_out(entry.stage, problem, implementation.declaration)
    if not found.left_out:
        fresh = generate(problem, backend.device, whole_forward=whole)  # the implementation may write to its inputs
        try:
            faults, found.worst = _judge(entry.stage, fresh, answers, Guarded(implementation))
        except ImplementationError as error:
            faults, found.worst = [str(error)], math.inf
        found.faults += [f"implementation: {fault}" for fault in faults]
    return found


def _left_out(stage: str, problem: Problem, declaration: Declaration) -> str:
    """Why an entry says nothing about an implementation so declared, or an empty string."""
    if stage not in declaration.stages:
        return "stage not declared"
    if not declaration.supports(problem, KINDS[KIND_OF.get(stage, stage)]):
        return "problem not declared"
    units = stage not in ("permute", "combine") and problem.dtype != "fp32"
    if units and (declaration.kappa > LARGEST_KAPPA or declaration.flushes_subnormals):
        return "declared arithmetic is coarser than the golden bounds"
    if concerned(stage, problem, declaration.rounds) not in roundings(stage, problem):
        return "no answer for the declared rounding points"
    return ""


def _judge(
    stage: str, inputs: Inputs, answers: dict[str, np.ndarray], implementation: Guarded
) -> tuple[list[str], float]:
    problem = inputs.problem
    fmt = FORMATS[problem.dtype]
    if stage == "permute":
        permutation = implementation.permute(inputs.ids, problem.experts)
        names = ("order", "inverse", "offsets")
        wrong = [n for n in names if not np.array_equal(_integers(getattr(permutation, n)), answers[n])]
        return [f"{name} is wrong" for name in wrong], math.inf if wrong else 0.0
    if stage in ("route", "forward"):
        out, ids, weights = (
            (None, *implementation.route(inputs)) if stage == "route" else implementation.forward(inputs)
        )
        faults, worst = _routing(ids, weights, answers)
        if out is not None:
            points = concerned(stage, problem, implementation.declaration.rounds)
            more, largest = _values("out", out, answers, label(points), fmt)
            faults, worst = faults + more, max(worst, largest)
        return faults, worst
    permutation = _permutation(inputs, implementation)
    if stage == "gate_up":
        points = concerned(stage, problem, implementation.declaration.rounds)
        return _values("h", implementation.gate_up(inputs, permutation), answers, label(points), fmt)
    if stage == "down":
        return _values("y", implementation.down(inputs, inputs.h, permutation), answers, "unrounded", fmt)
    out = implementation.combine(inputs, inputs.y, inputs.weights, permutation)
    return _values("out", out, answers, "unrounded", fmt)


def _permutation(inputs: Inputs, implementation: Guarded) -> Permutation:
    if "permute" in implementation.declaration.stages:
        found: Permutation = implementation.permute(inputs.ids, inputs.problem.experts)
        return found
    order, inverse, offsets = oracle.expected_permutation(inputs.ids, inputs.problem.experts)
    return Permutation(order.int(), inverse.int(), offsets.int())


def _integers(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().cpu().numpy()
    return found if np.issubdtype(found.dtype, np.integer) else np.full(found.shape, -1)


def _routing(ids: Tensor, weights: Tensor, answers: dict[str, np.ndarray]) -> tuple[list[str], float]:
    """The order of the choices is free: they are compared by ascending id."""
    if tuple(ids.shape) != answers["ids"].shape or tuple(weights.shape) != answers["ids"].shape:
        return [
            f"ids and weights must be {answers['ids'].shape}, got {tuple(ids.shape)}, {tuple(weights.shape)}"
        ], math.inf
    ordered, places = ids.long().cpu().sort(-1)
    wrong = np.flatnonzero((ordered.numpy() != answers["ids"]).any(-1))
    if wrong.size:
        t = int(wrong[0])
        return [f"ids at token {t} are {ordered[t].tolist()}, the answer is {answers['ids'][t].tolist()}"], math.inf
    return _values("weights", weights.cpu().gather(1, places), answers, "weights", FORMATS["fp32"])


def _exponent(values: np.ndarray, fmt: Format) -> np.ndarray:
    """Of the spacing of `fmt` at `values`."""
    found: np.ndarray = np.clip(np.frexp(values)[1] - 1, fmt.min_exponent, fmt.max_exponent) - (fmt.precision - 1)
    return found


def nearest(values: np.ndarray, fmt: Format) -> np.ndarray:
    """float64 values rounded once to `fmt`, halves to even, with subnormals and infinities."""
    exponent = _exponent(values, fmt)
    rounded: np.ndarray = np.ldexp(np.rint(np.ldexp(values, -exponent)), exponent)
    return np.where(np.abs(values) >= fmt.overflow, np.copysign(np.inf, values), rounded)


def _values(
    name: str, value: Tensor, answers: dict[str, np.ndarray], prefix: str, fmt: Format
) -> tuple[list[str], float]:
    """Whether a tensor lies within answer +- radius after one rounding; and the largest error over that bound."""
    answer, radius = answers[f"{prefix}/answer"], answers[f"{prefix}/radius"]
    if tuple(value.shape) != answer.shape or value.dtype != fmt.dtype:
        return [f"{name} must be {answer.shape} {fmt.dtype}, got {tuple(value.shape)} {value.dtype}"], math.inf
    got = value.detach().cpu().double().numpy()
    claimed = np.isfinite(radius)
    got, answer, radius = got[claimed], answer[claimed], radius[claimed]
    # Rounding is monotone: the stored interval's ends are the rounded ends. One step outwards for this float64 sum.
    low = nearest(np.nextafter(answer - radius, -np.inf), fmt)
    high = nearest(np.nextafter(answer + radius, np.inf), fmt)
    inside = (low <= got) & (got <= high)
    half_step = np.ldexp(0.5, _exponent(answer, fmt))
    with np.errstate(invalid="ignore"):  # Inf - Inf, where Inf is right
        ratio = np.abs(got - answer) / (radius + half_step)
    ratio = np.where(inside, np.where(np.isfinite(ratio), ratio, 0.0), np.where(np.isnan(ratio), np.inf, ratio))
    worst = float(ratio.max(initial=0.0))
    if inside.all():
        return [], worst
    at = int(np.flatnonzero(~inside)[0])
    where = tuple(int(i) for i in np.argwhere(claimed)[at])
    found = f"value {got[at]:.9g}, answer {answer[at]:.9g}, stored between {low[at]:.9g} and {high[at]:.9g}"
    return [
        f"{name}: {int((~inside).sum())} of {inside.size} elements out of bound, the first at {where}: {found}"
    ], worst


def summary(checked: list[Checked]) -> list[dict[str, Any]]:
    """By stage: entries, those at fault, the oracle's largest difference, and the implementation's largest ratio."""
    rows = []
    for stage in dict.fromkeys(c.entry.stage for c in checked):
        own = [c for c in checked if c.entry.stage == stage]
        rows.append(
            {
                "stage": stage,
                "entries": len(own),
                "at fault": sum(bool(c.faults) for c in own),
                "difference": max(c.difference for c in own),
                "compared": sum(not c.left_out for c in own),
                "worst": max(c.worst for c in own),
            }
        )
    return rows
