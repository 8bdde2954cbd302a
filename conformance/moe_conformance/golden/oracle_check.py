"""The torch oracle against answers of the independent path: the same midpoint, and a ball that contains the answer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from .. import oracle
from ..formats import FORMATS, Format
from ..generate import Inputs
from ..implementation import Declaration
from ..oracle import Ball
from .corpus import label, roundings

# A midpoint is float64: its sums of a few dozen terms are good to 1e-14 of their operands.
DIGITS = 1e-13
# A golden bound may exceed the oracle's: it counts 2 u per product where the oracle knows that fp32 costs 1, and a
# forward's holds the error of its routing weights as well, which the oracle takes as given (8 for large logits). A
# bound beyond this factor would judge little.
LOOSE = 16.0
# Below this nothing can be told: float64's own subnormal numbers.
NOTHING = 1e-300


@dataclass
class Agreement:
    """`difference`: the largest |midpoint - answer| over the operands' size. `ratios`: radius of the independent path
    over the oracle's, element by element. `faults`: what does not agree, in words."""

    difference: float = 0.0
    ratios: list[np.ndarray] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def compare(self, name: str, ball: Ball, answers: dict[str, np.ndarray], fmt: Format) -> None:
        """One tensor, stored in `fmt`. Elements about which either side claims nothing are left out."""
        answer, radius, size = (answers[f"{name}/{part}"] for part in ("answer", "radius", "size"))
        mid, rad = ball.mid.numpy(), ball.rad.numpy()
        if mid.shape != answer.shape:
            self.faults.append(f"{name}: the oracle's shape is {mid.shape}, the answer's {answer.shape}")
            return
        claimed = np.isfinite(rad) & np.isfinite(radius)
        error = np.abs(mid - answer)[claimed]
        relative = error / (size[claimed] + NOTHING)
        self.difference = max(self.difference, float(relative.max(initial=0.0)))
        self.ratios.append(radius[claimed] / np.maximum(rad[claimed], NOTHING))
        far = int((relative > DIGITS).sum())
        if far:
            self.faults.append(f"{name}: {far} midpoints are off by up to {relative.max():.3g} of their operands")
        store = fmt.unit_roundoff * np.abs(answer[claimed]) + fmt.eta
        looseness = (radius[claimed] + store) / (rad[claimed] + store)
        if looseness.size and np.median(looseness) > LOOSE:
            self.faults.append(f"{name}: the golden bounds are {np.median(looseness):.3g} times the oracle's")
        outside = int((error > rad[claimed]).sum())
        if outside:
            self.faults.append(f"{name}: {outside} answers lie outside the oracle's ball")


def against_oracle(stage: str, inputs: Inputs, answers: dict[str, np.ndarray]) -> Agreement:
    """Compare everything in `answers` (write.compute) with the oracle on `inputs` (on the CPU).

    The oracle must accept the ids without a violation; for a permutation integers are compared. The oracle's forward
    is given ids and weights of the answers.
    """
    problem, found = inputs.problem, Agreement()
    plain = Declaration("plain", rounds=frozenset())
    weights = torch.zeros(0)
    if stage in ("route", "forward"):
        ids, exact = torch.from_numpy(answers["ids"]), problem.exact_logits
        report = oracle.check_routing(inputs, ids, plain.arithmetic(problem), exact=exact)
        found.faults += [f"the oracle refuses the ids: {v.requirement}, {v.message}" for v in report.violations]
        if report.weights is None:
            return found
        found.compare("weights", report.weights, answers, FORMATS["fp32"])
        weights = torch.from_numpy(answers["weights/answer"])
    else:
        ids = inputs.ids
    order, inverse, offsets = oracle.expected_permutation(ids, problem.experts)
    if stage == "permute":
        for name, tensor in (("order", order), ("inverse", inverse), ("offsets", offsets)):
            if not np.array_equal(tensor.numpy(), answers[name]):
                found.faults.append(f"{name} is another one than the oracle's")
        return found
    for points in roundings(stage, problem) if stage != "route" else []:
        if f"{label(points)}/answer" not in answers:
            continue
        declaration = Declaration("golden", rounds=points)
        if stage == "gate_up":
            ball = oracle.gate_up(inputs, order, offsets, declaration)
        elif stage == "down":
            ball = oracle.down(inputs, Ball.exact(inputs.h), offsets, declaration)
        elif stage == "combine":
            addend = None if inputs.addend is None else Ball.exact(inputs.addend)
            ball = oracle.combine(Ball.exact(inputs.y), Ball.exact(inputs.weights), inverse, addend)
        else:
            ball = oracle.forward(inputs, ids, weights, declaration)
        found.compare(label(points), ball, answers, FORMATS[problem.dtype])
    return found
