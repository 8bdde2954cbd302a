"""Routers whose experts tie, exactly or all but."""

from __future__ import annotations

import numpy as np

from .problem import Problem
from .streams import raw_words


def tie_leaders(problem: Problem) -> np.ndarray | None:
    """The expert (E) whose row each expert shares: neighbours in threes (near ties: in two to five) tie, inside and
    across the top-k boundary. None where nobody ties."""
    if not (problem.ties or problem.near_ties):
        return None
    size = 3 if problem.ties else 2 + problem.seed % 4
    leaders: np.ndarray = np.arange(problem.experts) // size * size
    return leaders


def near_tie_gaps(problem: Problem, name: str) -> np.ndarray:
    """What is added to the logits or biases (E) of experts that would tie: 2**-5 to 2**-20 times a small signed
    integer, one scale for each group, so that some are far outside of what a correct router may confuse and some
    are inside."""
    leaders = tie_leaders(problem)
    assert leaders is not None
    words = raw_words(problem.seed, f"near_ties.{name}", problem.experts) >> np.uint64(40)
    steps = (words % np.uint64(9)).astype(np.int64) - 4
    scales = 5 + (words[leaders] // np.uint64(9) % np.uint64(16)).astype(np.int64)
    gaps: np.ndarray = steps * np.exp2(-scales.astype(np.float64))
    return gaps
