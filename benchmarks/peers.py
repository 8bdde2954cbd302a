"""Published numbers of other implementations (data/peers.toml): time over floor by shape and token count."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Peer:
    """The best published ratio of a cell, and whose it is ("best" where only the best was published)."""

    name: str
    ratio: float


@cache
def data() -> dict[str, Any]:
    return tomllib.loads(files("benchmarks").joinpath("data/peers.toml").read_text(encoding="utf-8"))


def behind_factor() -> float:
    """Ours is flagged where it is above the best peer's by more than this factor."""
    return float(data()["behind"])


def best(shape: str, tokens: int) -> Peer | None:
    """The best published peer of a cell under uniform load; None where nothing is published."""
    return _least(shape, "ratio", tokens)


def best_zipf(shape: str, tokens: int) -> Peer | None:
    """The best published peer of a cell under Zipf s=1.2, `ratio` being microseconds; None where none is published."""
    return _least(shape, "zipf_us", tokens)


def _least(shape: str, kind: str, tokens: int) -> Peer | None:
    entry = data().get(shape)
    if not isinstance(entry, dict) or kind not in entry or tokens not in data()["tokens"]:
        return None
    column = data()["tokens"].index(tokens)
    name, values = min(entry[kind].items(), key=lambda item: item[1][column])
    return Peer(name, float(values[column]))
