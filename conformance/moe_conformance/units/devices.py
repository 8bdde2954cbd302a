"""The units of a device, as functions that the probe can measure: tl.dot at two tile sizes and the vendor's product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import interpreter
from ..backends import Backend
from .table import DTYPES, DType

TORCH = {"fp16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}
LENGTH = 64
# NVIDIA's units have an instruction for a warp (16 rows) and one for four warps (64 rows).
SIDES = (16, 64)


@dataclass(frozen=True)
class Dot:
    """`tl.dot` on tiles of side x side x length. fp32 is multiplied at "ieee" precision, tf32 at "tf32"."""

    dtype: DType
    side: int
    device: str
    length: int = LENGTH
    takes_c: bool = True

    @property
    def name(self) -> str:
        return f"tl.dot {self.side}x{self.side}x{self.length}"

    def __call__(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        from .probe_kernel import probe_kernel

        left, right = (_tiles(x, self.side, TORCH[self.dtype], self.device) for x in (a, b))
        start = torch.diag_embed(_tiles(c, self.side, torch.float32, self.device))
        out = torch.empty_like(start)
        shape = {"SIDE": self.side, "LENGTH": self.length}
        precision = "tf32" if self.dtype == "tf32" else "ieee"
        probe_kernel[(len(left),)](left, right, start, out, **shape, INPUT_PRECISION=precision)
        return _results(out, len(a))


@dataclass(frozen=True)
class Product:
    """`torch.mm` with an fp32 result: the vendor's library, whatever kernel it picks for this size."""

    dtype: DType
    side: int
    device: str
    length: int = LENGTH
    takes_c: bool = False

    @property
    def name(self) -> str:
        return f"torch.mm {self.side}x{self.side}x{self.length}"

    def __call__(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        left, right = (_tiles(x, self.side, TORCH[self.dtype], self.device) for x in (a, b))
        made = [torch.mm(x, y.T, out_dtype=torch.float32) for x, y in zip(left, right, strict=True)]
        return _results(torch.stack(made), len(a))


def _tiles(rows: Tensor, side: int, dtype: torch.dtype, device: str) -> Tensor:
    """Experiments (R, ...) -> (tiles, side, ...) in `dtype`, filled up with zeros. Raises ValueError where a value
    cannot be represented."""
    typed = rows.to(dtype)
    if not torch.equal(typed.double(), rows):
        raise ValueError(f"the probe's values must be representable in {dtype}")
    missing = -len(rows) % side
    padded = torch.cat([typed, typed.new_zeros(missing, *rows.shape[1:])])
    return padded.reshape(-1, side, *rows.shape[1:]).to(device)


def _results(out: Tensor, count: int) -> Tensor:
    return out.diagonal(dim1=1, dim2=2).reshape(-1)[:count].double().cpu()


def paths(backend: Backend) -> Iterator[Dot | Product]:
    """Everything that can be measured on a backend."""
    interpreter.repair()
    for dtype in DTYPES:
        for side in SIDES:
            yield Dot(dtype, side, backend.device)
    if backend.is_gpu:
        yield Product("fp16", 64, backend.device)
        yield Product("bf16", 64, backend.device)
