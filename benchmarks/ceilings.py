"""The device's ceilings, measured in the same run as everything that is divided by them."""

from __future__ import annotations

import torch

from .floor import Ceilings
from .timing import Clock, NotCapturable, Sample

_COPY_BYTES = 2 << 30  # far beyond any cache
_MATRIX = 8192
_CPU_COPY_BYTES = 32 << 20
_CPU_MATRIX = 256


def measure(clock: Clock, dtype: torch.dtype) -> Ceilings:
    """Copy bandwidth (bytes read plus written a second) and matmul rate (2·n³ operations a second, random data).

    Random data, because a multiplication of zeros draws less power and runs at a higher clock.
    """
    device = clock.device
    small = device.type == "cpu"
    generator = torch.Generator(device).manual_seed(0)
    size = (_CPU_COPY_BYTES if small else _COPY_BYTES) // 4
    source = torch.zeros(size, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copied = _time(clock, lambda: target.copy_(source))
    bandwidth = 2 * size * 4 / copied.median
    n = _CPU_MATRIX if small else _MATRIX
    left = torch.empty((n, n), dtype=dtype, device=device).normal_(generator=generator)
    right = torch.empty((n, n), dtype=dtype, device=device).normal_(generator=generator)
    product = torch.empty_like(left)
    multiplied = _time(clock, lambda: torch.mm(left, right, out=product))
    return Ceilings(bandwidth, 2 * n**3 / multiplied.median)


def _time(clock: Clock, call: object) -> Sample:
    assert callable(call)
    try:
        return clock.replayed(call)
    except NotCapturable:
        return clock.eager(call)
