"""Random numbers: the same on every platform and version.

They come from NumPy's Philox counter, as raw 64-bit words that only integer arithmetic touches: NumPy keeps raw words
stable between versions, which it does not promise for its distributions. Every tensor has its own stream, keyed by the
problem's seed and the tensor's name.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np

# Tensors above this many elements repeat one pool of numbers whose length is prime, so that no row, column or expert
# lines up with the period: drawing the 11 billion weights of a large model on a CPU would take minutes.
POOL = 2**22 - 3


def raw_words(seed: int, name: str, count: int) -> np.ndarray:
    """`count` uint64 words of the stream (seed, name)."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "little")
    words: np.ndarray = np.random.Philox(key=key).random_raw(count)
    return words


def _gaussian_like(words: np.ndarray) -> np.ndarray:
    # Sum of four 16-bit uniforms (Irwin-Hall), centred and scaled to unit variance: bell-shaped, bounded by 3.5
    # sigma, and exact in integers until one final multiplication.
    parts = words.view(np.uint16).reshape(-1, 4)
    total = np.full(parts.shape[0], -2 * 65535, dtype=np.int32)
    for column in range(4):  # column by column: a sum along so short an axis takes ten times as long
        total += parts[:, column]
    values: np.ndarray = total.astype(np.float64) * (math.sqrt(3.0) / 65536.0)
    return values


def sample(words: np.ndarray, regime: str) -> np.ndarray:
    """float64 numbers of a value regime, one for each word; regimes of range and layout of signs are made of these."""
    if regime in ("positive", "aligned"):  # aligned: the signs are put on afterwards
        return ((words >> np.uint64(40)).astype(np.float64) + 1.0) * 2.0**-24
    if regime == "integers":
        return (words >> np.uint64(33)).astype(np.int64) % 7 - 3.0
    values = _gaussian_like(words)
    if regime == "spiky":
        # One element in 64 is 32 times larger: sums dominated by few terms, as trained activations have.
        return np.where((words >> np.uint64(58)) == 0, values * 32.0, values)
    return values


@lru_cache(maxsize=8)
def sampled(seed: int, name: str, count: int, regime: str) -> np.ndarray:
    """The stream (seed, name) in a regime, read-only. Kept for a while: inputs are made twice, for the implementation
    and for its judge."""
    values = sample(raw_words(seed, name, count), regime)
    values.setflags(write=False)
    return values
