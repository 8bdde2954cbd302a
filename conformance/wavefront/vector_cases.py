"""What record_vectors records: inputs that are the same everywhere, and the call that makes the outputs.

Inputs are written down by formula or drawn by a fixed generator of NumPy. A file keeps their bits as well, so what is
compared later never depends on this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float32, torch.float16, torch.bfloat16),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
        *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint32),
    )
}
_BITS: dict[int, torch.dtype] = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Where the compiler has conversions for 8-bit formats; elsewhere its back end ends the whole process.
_FLOAT8_ARCHITECTURES = ("gfx94", "gfx95", "gfx12")
FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")


@dataclass(frozen=True)
class Case:
    """One launch. kind: which kernel; options: its constants, as plain data; result: the dtype of its output."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    result: str
    options: dict[str, str] = field(default_factory=dict)


# -- tensors as text ----------------------------------------------------------


def to_text(tensor: Tensor) -> dict[str, Any]:
    """dtype, shape, and the elements' bits as hexadecimal words."""
    size = tensor.dtype.itemsize
    words = tensor.cpu().contiguous().view(_BITS[size]).numpy().view(f"u{size}").ravel()
    bits = " ".join(f"{int(word):0{2 * size}x}" for word in words)
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "bits": bits}


def from_text(data: dict[str, Any]) -> Tensor:
    """What to_text wrote. Raises ValueError for anything else."""
    try:
        dtype, shape = DTYPES[data["dtype"]], [int(size) for size in data["shape"]]
        words = [int(word, 16) for word in data["bits"].split()]
        array = np.array(words, dtype=f"u{dtype.itemsize}").view(f"i{dtype.itemsize}")
        return torch.from_numpy(array).view(dtype).reshape(shape)
    except (KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"this is no tensor of a vector file: {error!r}") from error


# -- inputs ----------------------------------------------------------

_SPECIAL = (
    *(0x00000000, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 0xFF7FFFFF),
    *(0x00000001, 0x80000001, 0x00000002, 0x000FFFFF, 0x00400000, 0x007FFFFF, 0x807FFFFF, 0x00800000, 0x00800001),
    *(0x3F7FFFFF, 0x3F800001, 0x40000000, 0x40490FDB, 0x42FE0000, 0x42FFFFFF, 0x43000000, 0xC2FC0000, 0xC3150000),
    *(0xC3160000, 0x7E800000, 0x7F000000, 0x01000000, 0x33800000, 0x34000000, 0x4B000000, 0x4B800000, 0x5F000000),
)


def floats(count: int = 384) -> Tensor:
    """Special values, values of everyday size, and bit patterns of every exponent; float32 (count,)."""
    draw = np.random.Generator(np.random.PCG64(20240607))
    special = np.array(_SPECIAL, dtype=np.uint32).view(np.float32)
    left = count - len(special)
    everyday = (draw.random(left // 2) * 32 - 16).astype(np.float32)
    wide = draw.integers(0, 1 << 32, left - len(everyday), dtype=np.uint32).view(np.float32)
    return torch.from_numpy(np.concatenate([special, everyday, wide]))


def float_edges() -> Tensor:
    """float32 around the ends, the ties and the subnormal ranges of every narrower format, of both signs."""
    found = [np.array(_SPECIAL, dtype=np.uint32).view(np.float32)]
    # (bits of fraction, exponent of the smallest normal number, largest number)
    wide = ((10, -14, 65504.0), (7, -126, 3.3895313892515355e38))
    narrow = ((3, -6, 448.0), (2, -14, 57344.0), (3, -7, 240.0), (2, -15, 57344.0))
    for fraction, least, largest in wide + narrow:
        step = 2.0 ** (least - fraction)
        top = np.float64(largest) * (1 + np.arange(-2, 5) * 2.0 ** -(fraction + 2))
        low = step * np.array([0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 2**fraction - 0.5, 2**fraction])
        middle = 1 + np.arange(0, 9) * 2.0 ** -(fraction + 1)
        values = np.concatenate([top, low, middle])
        with np.errstate(over="ignore"):
            values = np.concatenate([values, -values]).astype(np.float32)
        found += [values, np.nextafter(values, np.float32(np.inf)), np.nextafter(values, np.float32(-np.inf))]
    whole = [0.5, 1.5, 2.5, 126.5, 127.5, 128, 255.5, 256, 32767.5, 32768, 65535.5, 65536, 2.0**31 - 128, 2.0**31]
    whole += [2.0**31 + 256, 2.0**32 - 256, 2.0**32, 2.0**32 + 512, 2.0**63 - 2.0**39, 2.0**63, 2.0**64]
    found.append(np.array(whole + [-x for x in whole], dtype=np.float32))
    return torch.from_numpy(np.concatenate(found))


def integer_edges(kind: str) -> Tensor:
    """Integers around powers of two and around the ties of fp32, fp16 and bf16."""
    dtype = DTYPES[kind]
    limits = torch.iinfo(dtype)
    bases = [2**n for n in range(64)] + [2**n + 2 ** max(n - digits, 0) for n in range(8, 63) for digits in (8, 11, 24)]
    values = sorted({sign * base + off for base in bases for sign in (1, -1) for off in (-1, 0, 1)} | {0})
    inside = [value for value in values if limits.min <= value <= limits.max]
    return torch.from_numpy(np.array(inside, dtype=kind))


def all_codes(dtype: torch.dtype) -> Tensor:
    """Every number of an 8-bit format."""
    return torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype)


# -- dot products ----------------------------------------------------------

SIDE = 16


def dot_inputs(kind: str, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """a (16, length), b (length, 16), c (16, 16): sixteen experiments, whose own results stand on the diagonal.

    Row p of `a` and column p of `b` are one experiment each; the other places mix two of them, and are recorded too.
    """
    tiny = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149}[kind]
    least = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126}[kind]
    big = 2.0**10
    draw = np.random.Generator(np.random.PCG64(7))
    a, b, c = np.zeros((SIDE, length)), np.zeros((length, SIDE)), np.zeros((SIDE, SIDE))
    last, middle = length - 1, length // 2

    def put(p: int, factors: dict[int, tuple[float, float]], start: float = 0.0) -> None:
        for place, (left, right) in factors.items():
            a[p, place], b[place, p] = left, right
        c[p, p] = start

    small = (2.0**-3, 2.0**-2)  # a quarter of the last bit of big·big
    every = dict.fromkeys(range(length), small)
    put(0, every | {0: (big, big)})  # one large product before, between and behind many small ones
    put(1, every | {last: (big, big)})
    put(2, every | {middle: (big, big)})
    put(3, every | {0: (big, big), last: (-big, big)})  # two that cancel: which small ones are left?
    put(4, every | {0: (big, big), 1: (-big, big)})
    put(5, every | {0: (big, big), middle: (-big, big)})
    put(6, every, big * big)  # the accumulator is the large one
    put(7, every | {last: (-big, big)}, big * big)
    put(8, {0: (1.75, 1.75), 1: (0.9375, 1.0), 2: (2.0**-12, 2.0**-11)})  # a carry, and a tie behind it
    put(9, {0: (-1.75, 1.75), 1: (-0.9375, 1.0), 2: (-(2.0**-12), 2.0**-11), 3: (-(2.0**-14), 2.0**-14)})
    put(10, dict.fromkeys(range(length), (tiny, 1.0)))  # subnormal inputs
    put(11, {0: (3 * tiny, big), 1: (-3 * tiny, big), 2: (tiny, 1.0), 3: (least, 1.0)})
    put(12, {0: (least, least if kind == "float16" else 2.0**-10), 1: (tiny, tiny)}, 2.0**-149)  # subnormal results
    a[13], b[:, 13], c[13, 13] = draw.standard_normal(length), draw.standard_normal(length), 0.3
    a[14], b[:, 14] = draw.standard_normal(length), draw.standard_normal(length)
    put(15, {0: (float("inf"), 1.0), 1: (-float("inf"), 0.0 if length == 32 else 1.0)})  # NaN either way
    dtype = DTYPES[kind]
    return tuple(torch.from_numpy(x).to(t) for x, t in ((a, dtype), (b, dtype), (c, torch.float32)))  # type: ignore[return-value]


# -- all of them ----------------------------------------------------------

_UNARY = ("exp", "exp2", "log", "log2", "sqrt", "sqrt_rn", "rsqrt", "sin", "cos", "erf", "reciprocal")
_INSTRUCTIONS = ("v_exp_f32", "v_log_f32", "v_rcp_f32", "v_rsq_f32", "v_sqrt_f32", "v_sin_f32", "v_cos_f32")
TF32_ARCHITECTURES = ("gfx942",)


def cases(architecture: str) -> Iterator[Case]:
    """Every case for an architecture such as "gfx942"."""
    x = floats()
    for function in _UNARY:
        yield Case(f"tl.{function}", "unary", (x,), "float32", {"FUNCTION": function})
    for mnemonic in _INSTRUCTIONS:
        yield Case(mnemonic, "instruction", (x,), "float32", {"ASSEMBLY": _alone(mnemonic, architecture)})
    for function in ("divide", "div_rn"):
        yield Case(f"tl.{function}", "binary", (x, x.flip(0).clone()), "float32", {"FUNCTION": function})
    edges = float_edges()
    float8 = FLOAT8 if architecture.startswith(_FLOAT8_ARCHITECTURES) else ()
    for kind in ("float16", "bfloat16", *float8, "int32", "int64", "uint32"):
        yield Case(f"float32 to {kind}", "convert", (edges,), kind)
    for kind in ("float16", "bfloat16"):
        every = torch.arange(-(2**15), 2**15, 37, dtype=torch.int32).to(torch.int16).view(DTYPES[kind])
        for result in ("float32", *float8):
            yield Case(f"{kind} to {result}", "convert", (every,), result)
    for kind in float8:
        for result in ("float32", "float16", "bfloat16"):
            yield Case(f"{kind} to {result}", "convert", (all_codes(DTYPES[kind]),), result)
    for kind in ("int32", "uint32", "int64"):
        for result in ("float32", "float16", "bfloat16"):
            yield Case(f"{kind} to {result}", "convert", (integer_edges(kind),), result)
    for kind in ("float16", "bfloat16", "float32"):
        precisions = ("ieee", "tf32") if kind == "float32" and architecture in TF32_ARCHITECTURES else ("ieee",)
        for precision in precisions:
            for length in (16, 32):
                name = f"tl.dot {kind} {precision} {length}"
                yield Case(name, "dot", dot_inputs(kind, length), "float32", {"PRECISION": precision})


def _alone(mnemonic: str, architecture: str) -> str:
    """Inline assembly of one transcendental instruction, and the pause that its result asks for: the compiler does not
    look inside, so that it would not put one there."""
    pause = {"gfx11": "s_waitcnt_depctr 0xfff", "gfx12": "s_wait_alu 0xfff"}.get(architecture[:5], "s_nop 4")
    return f"{mnemonic} $0, $1\n{pause}"
