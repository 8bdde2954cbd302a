"""Constants of the sharp and the statistical tier, measured and kept as data with their source."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Calibration:
    """data/calibration.toml has the meaning, the measured extremes and the source of each constant.

    sharp_factor: times the running bound of one product. least_elements: effective sample of the statistical tier.
    most_spread (a ratio) and most_lean (ulp): its thresholds, to which come so many standard `deviations` of what
    chance does, and the share `accumulated` of the sound radius, which accumulation is granted.
    """

    sharp_factor: float
    least_elements: int
    most_spread: float
    most_lean: float
    deviations: float
    accumulated: float


@cache
def calibration() -> Calibration:
    """The constants every judgement uses."""
    text = (files("moe_conformance") / "data" / "calibration.toml").read_text(encoding="utf-8")
    return Calibration(**tomllib.loads(text)["constants"])
