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
    tight: largest radius, as a part of the store's spacing, of the elements it looks at. most_spread (a ratio) and
    most_lean (ulp): its thresholds, to which come what the radii grant and, to the spread, so many standard
    `deviations` of chance.
    """

    sharp_factor: float
    least_elements: int
    tight: float
    most_spread: float
    most_lean: float
    deviations: float


@cache
def calibration() -> Calibration:
    """The constants every judgement uses."""
    text = (files("moe_conformance") / "data" / "calibration.toml").read_text(encoding="utf-8")
    return Calibration(**tomllib.loads(text)["constants"])
