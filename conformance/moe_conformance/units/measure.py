"""How a unit adds up products, measured from outside by sums whose result tells (after Fasi et al., PeerJ CS e330).

A unit is a function from many independent dot products to their results. Every experiment is one dot product of a few
powers of two: BIG, -BIG, and something small that comes back or is lost. No model of the unit is assumed beforehand;
what fits none of the models of data/units.toml is reported as such.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from .table import Accumulator, DType, Rounding, Summation, kappa

BIG = 2.0**20
# BIG * 2**-TINY is lost beside BIG in any sum that keeps no more than this many bits: more than fp32 has, and than any
# published unit keeps. Both factors of every product stay normal in fp16.
TINY = 40
Term = tuple[float, float]


class Products(Protocol):
    """A unit: `a`, `b` (R,length) and `c` (R), float64 values that `dtype` and fp32 represent -> c + sum of a*b, (R)
    float64. `takes_c` is False where nothing but products can be given: c is zero then."""

    @property
    def dtype(self) -> DType: ...
    @property
    def length(self) -> int: ...
    @property
    def takes_c(self) -> bool: ...

    def __call__(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor: ...


class Measured(BaseModel):
    """What was seen. None: not to be seen with this unit, or nothing that a model explains.

    block_indices: the places in K of the products that are added first, in one step.
    kept_bits, kept_bits_most: smallest and largest number of bits seen, over the places of the three products.
    accumulator_first: the accumulator takes part from the first product on, not after the last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    summation: Summation | None = None
    block: int | None = None
    block_indices: list[int] | None = None
    kept_bits: int | None = None
    kept_bits_most: int | None = None
    rounding: Rounding | None = None
    rounding_seen: list[float] | None = None
    accumulator: Accumulator | None = None
    accumulator_bits: int | None = None
    accumulator_first: bool | None = None
    subnormals: Literal["kept", "flushed"] | None = None
    alignment: Literal["stored", "value"] | None = None

    @property
    def kappa(self) -> float | None:
        """Computed from what was measured; None where that does not suffice."""
        if self.summation is None or self.rounding is None or (self.summation == "blocks" and self.kept_bits is None):
            return None
        return kappa(self.summation, self.block, self.kept_bits, self.rounding)


def product(value: float) -> Term:
    """Two factors of `value` with exponents of about the same size."""
    second = 2.0 ** (math.frexp(value)[1] // 2)
    return value / second, second


class Bench:
    """Runs experiments on one unit."""

    def __init__(self, unit: Products) -> None:
        self.unit = unit

    def run(self, experiments: Sequence[tuple[dict[int, Term], float]]) -> list[float]:
        """Each experiment: products by their place in K, and the accumulator's first value."""
        count, length = len(experiments), self.unit.length
        a, b = torch.zeros(count, length, dtype=torch.float64), torch.zeros(count, length, dtype=torch.float64)
        c = torch.tensor([start for _, start in experiments], dtype=torch.float64)
        for row, (terms, _) in enumerate(experiments):
            for place, (first, second) in terms.items():
                a[row, place], b[row, place] = first, second
        return [float(x) for x in self.unit(a, b, c)]

    def survivors(self, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], set[int]]:
        """For BIG and -BIG at a pair of places: where a tiny product comes through."""
        tiny = BIG * 2.0**-TINY
        tried = [(p, q, i) for p, q in pairs for i in range(self.unit.length) if i not in (p, q)]
        found: dict[tuple[int, int], set[int]] = {pair: set() for pair in pairs}
        seen = self.run([({p: product(BIG), q: product(-BIG), i: product(tiny)}, 0.0) for p, q, i in tried])
        for (p, q, i), value in zip(tried, seen, strict=True):
            if value == tiny:
                found[p, q].add(i)
        return found


def measure(unit: Products) -> Measured:
    """Measure everything that can be seen of a unit."""
    bench, length = Bench(unit), unit.length
    neighbours = list(pairwise(range(length)))
    found = bench.survivors([*neighbours, *((0, q) for q in range(2, length))])
    pair = max(found, key=lambda p: len(found[p]))
    first = [i for i in range(length) if i not in found[pair]]  # the pair, and what is added in the same step or before
    seen: dict[str, object] = {"subnormals": _subnormals(bench)}
    if not found[pair]:
        return Measured.model_validate(seen)  # everything is lost: a step longer than K
    if all(len(places) == length - 2 for places in found.values()):
        # Nothing is lost: more than TINY bits are kept from the first product to the last.
        rounding, results = _rounding(bench, pair, next(i for i in range(length) if i not in pair))
        seen |= {"rounding": rounding, "rounding_seen": results, "summation": "whole" if rounding else None}
        return Measured.model_validate(seen)
    third = next(i for i in (first if len(first) > 2 else range(length)) if i not in pair)
    rounding, results = _rounding(bench, pair, third)
    seen |= {"rounding": rounding, "rounding_seen": results}
    if len(first) == 2:
        # Not even two products are added in one step with a third. Additions that are properly rounded, then?
        if _single_addition(bench, pair) == rounding is not None:
            one_by_one = all(found[p, q] == set(range(q + 1, length)) for p, q in neighbours)
            seen["summation"] = "chain" if one_by_one else "tree"
    else:
        least, most = _kept_bits(bench, first)
        seen |= {"summation": "blocks", "block": len(first), "block_indices": first}
        seen |= {"kept_bits": least, "kept_bits_most": most}
        if least is not None:
            seen["alignment"] = _alignment(bench, first, least) if seen["subnormals"] == "kept" else None
        if unit.takes_c:
            seen |= dict(zip(("accumulator", "accumulator_bits"), _accumulator(bench, first), strict=True))
    if unit.takes_c:
        tiny = BIG * 2.0**-TINY
        later = {pair[0]: product(-BIG), max(found[pair]): product(tiny)}
        seen["accumulator_first"] = bench.run([(later, BIG)]) == [tiny]
    return Measured.model_validate(seen)


def _kept_bits(bench: Bench, block: list[int]) -> tuple[int | None, int | None]:
    """BIG, -BIG and BIG 2**-j in one block: the largest j up to which it comes back, least and most over the places."""
    x, y, *others = block
    places = [(x, y, i) for i in others] + [(x, i, y) for i in others] + [(i, x, y) for i in others]
    tried = [(p, q, i, BIG * 2.0**-j) for p, q, i in places for j in range(TINY + 1)]
    values = bench.run([({p: product(BIG), q: product(-BIG), i: product(small)}, 0.0) for p, q, i, small in tried])
    kept = []
    for start in range(0, len(tried), TINY + 1):
        lost = [j for j in range(TINY + 1) if values[start + j] != tried[start + j][3]]
        kept.append((lost[0] if lost else TINY + 1) - 1)
    return (min(kept), max(kept)) if min(kept) >= 0 else (None, None)


# What quarters of an ulp beside an even value round to, in ulps: first beside a positive, then beside a negative one.
QUARTERS = (0.25, 0.5, 0.75, 1.25, 1.5)
Patterns = dict[tuple[float, ...], Rounding]
OUTWARD: Patterns = {
    (0, 0, 1, 1, 2, 0, 0, -1, -1, -2): "nearest",
    (0, 0, 0, 1, 1, 0, 0, 0, -1, -1): "zero",
    (0, 0, 0, 1, 1, -1, -1, -1, -2, -2): "floor",
}
INWARD: Patterns = {
    (0, 0, -1, -1, -2, 0, 0, 1, 1, 2): "nearest",
    (-1, -1, -1, -2, -2, 1, 1, 1, 2, 2): "zero",
    (-1, -1, -1, -2, -2, 0, 0, 0, 1, 1): "floor",
}


def _steps(values: list[float], anchor: float, ulp: float) -> list[float]:
    """How many ulps lie between the anchors, positive in the first half and negative in the second, and the values."""
    half = len(values) // 2
    return [(v - anchor) / ulp for v in values[:half]] + [(v + anchor) / ulp for v in values[half:]]


def _rounding(bench: Bench, pair: tuple[int, int], third: int) -> tuple[Rounding | None, list[float]]:
    """Two products that sum to 4, with exponents of 0 and below, and a third of quarters of 4's ulp.

    The carry into 4 leaves two bits behind fp32's last one even in a unit that keeps 23 bits, so what is seen is the
    rounding of the sum, not the cutting of its terms.
    """
    ulp = 2.0**-21
    experiments = []
    for sign in (1.0, -1.0):
        for quarters in QUARTERS:
            anchors = {pair[0]: (sign * 1.75, 1.75), pair[1]: (sign * 0.9375, 1.0)}
            experiments.append(({**anchors, third: product(sign * quarters * ulp)}, 0.0))
    steps = _steps(bench.run(experiments), 4.0, ulp)
    return OUTWARD.get(tuple(steps)), steps


def _single_addition(bench: Bench, pair: tuple[int, int]) -> Rounding | None:
    """How 1 and quarters of the ulp above or below it are added, and nothing else: no carry hides bits that were cut
    off. None where it is no proper rounding of the exact sum."""
    found = []
    for toward, ulp, patterns in ((1.0, 2.0**-23, OUTWARD), (-1.0, 2.0**-24, INWARD)):
        signed = [(sign, sign * toward * quarters * ulp) for sign in (1.0, -1.0) for quarters in QUARTERS]
        values = bench.run([({pair[0]: (sign, 1.0), pair[1]: product(x)}, 0.0) for sign, x in signed])
        found.append(patterns.get(tuple(_steps(values, 1.0, ulp))))
    return found[0] if found[0] == found[1] else None


def _accumulator(bench: Bench, block: list[int]) -> tuple[Accumulator | None, int | None]:
    """BIG and -BIG in one block, c = +-BIG 2**-j: up to which j it comes back, and what becomes of it beyond."""
    big = {block[0]: product(BIG), block[1]: product(-BIG)}
    above = bench.run([(big, BIG * 2.0**-j) for j in range(TINY + 1)])
    below = bench.run([(big, -BIG * 2.0**-j) for j in range(TINY + 1)])
    lost = [j for j in range(TINY + 1) if above[j] != BIG * 2.0**-j]
    if not lost:
        return "apart", None
    bits = lost[0] - 1
    if any(above[j] for j in lost):
        return None, bits
    beyond = {below[j] for j in lost}
    kinds: dict[float, Accumulator] = {0.0: "cut", -BIG * 2.0**-bits: "floored"}
    return (kinds.get(beyond.pop()) if len(beyond) == 1 else None), bits


# -- subnormal inputs ----------------------------------------------------------------------------------------------

SMALLEST_NORMAL = {"fp16": -14, "bf16": -126, "tf32": -126, "fp32": -126}
# A factor that brings a product with a subnormal back among ordinary numbers.
RAISING = {"fp16": 15, "bf16": 100, "tf32": 100, "fp32": 100}


def _subnormals(bench: Bench) -> Literal["kept", "flushed"] | None:
    """A product with one subnormal factor, on either side: there, or zero."""
    small, large = 2.0 ** (SMALLEST_NORMAL[bench.unit.dtype] - 1), 2.0 ** RAISING[bench.unit.dtype]
    # One by one: side by side in a tile they would also meet crosswise, and overflow.
    values = [value for terms in ((small, large), (large, small)) for value in bench.run([({0: terms}, 0.0)])]
    if values == [small * large] * 2:
        return "kept"
    return "flushed" if values == [0.0, 0.0] else None


def _alignment(bench: Bench, block: list[int], kept_bits: int) -> Literal["stored", "value"] | None:
    """Two products of subnormals that cancel, and a third that is lost beside the exponent they are stored with, but
    not beside that of their value, which is 7 lower."""
    lowest, raising = SMALLEST_NORMAL[bench.unit.dtype], RAISING[bench.unit.dtype]
    subnormal = 2.0 ** (lowest - 7)
    third = product(2.0 ** (lowest + raising - kept_bits - 3))
    if min(third) < 2.0**lowest:
        return None  # the unit keeps so many bits that the third would be subnormal itself
    terms = {block[0]: (subnormal, 2.0**raising), block[1]: (-subnormal, 2.0**raising), block[2]: third}
    (value,) = bench.run([(terms, 0.0)])
    if value == third[0] * third[1]:
        return "value"
    return "stored" if value == 0.0 else None
