"""A run cut over several machines: every problem belongs to one shard, by its id."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """One of `count` shards, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """ "2/8" is the second of eight. Raises ValueError."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"a shard is written I/N with 1 <= I <= N, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def holds(self, problem_id: str) -> bool:
        """Whether a problem is this shard's: ids are digests, so the shards are of about one size."""
        return int(problem_id, 16) % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
