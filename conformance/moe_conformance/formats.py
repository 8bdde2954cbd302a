"""Number formats: the constants that every bound is built from.

u = 2**-24 is fp32's unit roundoff (round to nearest), the unit in which accumulation errors are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

U = 2.0**-24
FP32_TINY = 2.0**-126  # fp32's smallest normal: device functions may flush below it
FP32_MAX = (2.0 - 2.0**-23) * 2.0**127


@dataclass(frozen=True)
class Format:
    """A floating-point format, IEEE 754 naming: `precision` counts the hidden bit."""

    name: str
    dtype: torch.dtype
    precision: int
    max_exponent: int
    min_exponent: int

    @property
    def unit_roundoff(self) -> float:
        return 2.0**-self.precision

    @property
    def eta(self) -> float:
        """Half the spacing of subnormal numbers: the absolute rounding error below the normal range."""
        return 2.0 ** (self.min_exponent - self.precision)

    @property
    def overflow(self) -> float:
        """The smallest magnitude that round-to-nearest turns into infinity (fp16: 65520)."""
        return (2.0 - 2.0**-self.precision) * 2.0**self.max_exponent


FORMATS = {
    "fp32": Format("fp32", torch.float32, 24, 127, -126),
    "fp16": Format("fp16", torch.float16, 11, 15, -14),
    "bf16": Format("bf16", torch.bfloat16, 8, 127, -126),
}
BY_DTYPE = {fmt.dtype: fmt for fmt in FORMATS.values()}
