"""Do two platforms' errors come from one distribution? Tests on error/bound, by property.

Two tests, since they see different things. The signed-rank test compares the same problem on both platforms: it sees
that one of them errs more, however little, as long as it does so everywhere. The two-sample test of Kolmogorov and
Smirnov compares the two sets: it sees another shape without a lean. It takes samples for independent; those here are of
the same problems, which makes it slower to alarm and never faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import NormalDist

LEAST_PAIRS = 20  # below, the normal approximation of the signed-rank test means nothing
LEVEL = 1e-3  # chance of one false alarm in a whole comparison; shared out over its tests


def signed_rank(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, normal approximation with ties; equal pairs are left out.

    1 where fewer than LEAST_PAIRS pairs differ. Raises ValueError for sequences of different lengths.
    """
    differences = sorted(
        (b - a for a, b in zip(first, second, strict=True) if a != b and math.isfinite(b - a)), key=abs
    )
    count = len(differences)
    if count < LEAST_PAIRS:
        return 1.0
    positive = seen = ties = 0.0
    for _, group in groupby(differences, key=abs):
        members = list(group)
        rank = seen + (len(members) + 1) / 2
        positive += rank * sum(value > 0 for value in members)
        ties += len(members) ** 3 - len(members)
        seen += len(members)
    mean = count * (count + 1) / 4
    variance = count * (count + 1) * (2 * count + 1) / 24 - ties / 48
    if variance <= 0:
        return 1.0
    z = max(0.0, abs(positive - mean) - 0.5) / math.sqrt(variance)
    return 2 * NormalDist().cdf(-z)


def kolmogorov_smirnov(first: Sequence[float], second: Sequence[float]) -> float:
    """Asymptotic two-sided p of the two-sample Kolmogorov-Smirnov test. 1 where a sample is empty."""
    if not first or not second:
        return 1.0
    left, right = sorted(first), sorted(second)
    i = j = 0
    distance = 0.0
    while i < len(left) and j < len(right):
        value = min(left[i], right[j])
        while i < len(left) and left[i] == value:
            i += 1
        while j < len(right) and right[j] == value:
            j += 1
        distance = max(distance, abs(i / len(left) - j / len(right)))
    size = math.sqrt(len(left) * len(right) / (len(left) + len(right)))
    x = (size + 0.12 + 0.11 / size) * distance  # Stephens's correction for small samples
    if x < 0.2:  # the series converges slowly there, and its value is 1 to nine digits
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))
    return min(1.0, max(0.0, math.fsum(terms)))


@dataclass(frozen=True)
class Spread:
    """error/bound of one property on the problems that two platforms share. p: the smaller of the two tests."""

    name: str
    pairs: int
    equal: int
    medians: tuple[float, float]
    worst: tuple[float, float]
    furthest: float
    lean: float
    shape: float

    @property
    def p(self) -> float:
        return min(self.lean, self.shape)


def spread(name: str, first: Sequence[float], second: Sequence[float]) -> Spread:
    """The comparison of one property, from its worst error/bound on each shared problem. At least one pair."""
    finite = [(a, b) for a, b in zip(first, second, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return Spread(
        name=name,
        pairs=len(first),
        equal=sum(a == b for a, b in zip(first, second, strict=True)),
        medians=(sorted(first)[len(first) // 2], sorted(second)[len(second) // 2]),
        worst=(max(first), max(second)),
        furthest=max((abs(a - b) for a, b in finite), default=0.0),
        lean=signed_rank(first, second),
        shape=kolmogorov_smirnov(first, second),
    )


def flagged(spreads: Sequence[Spread]) -> list[Spread]:
    """Those that differ by more than chance: LEVEL over all tests of the comparison (two for each property)."""
    return [each for each in spreads if each.p * 2 * len(spreads) < LEVEL]
