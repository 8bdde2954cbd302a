"""One cell of the matrix: a case compiled for a target, and what came of it. Needs Triton alone, and no device."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import re
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..whole_file import write_whole
from .cases import Case
from .targets import Target

_AMD_MATRIX = re.compile(r"^\s*v_(?:mfma|smfmac|wmma|swmmac)_", re.MULTILINE)
_NVIDIA_MATRIX = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b")
# %x = tt.dot %a, %b, %c, inputPrecision = tf32 : tensor<16x64xbf16> * ...; without a precision it is IEEE.
_DOT = re.compile(r"\btt\.dot\s+([^:]*):\s*tensor<(?:\d+x)+(\w+)")
_ELEMENTS = {"f16": "fp16", "bf16": "bf16", "f32": "fp32"}
_LOCAL = re.compile(r"\b(?:LDL|STL)\b")  # machine instructions that read and write a lane's memory
_RESOURCES = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")


class NoBackend(RuntimeError):
    """The installed Triton has no backend for a target."""


@dataclass(frozen=True)
class Cell:
    """What a case compiled to. error: the compiler's words where it did not.

    registers: of a lane, accumulation registers included. spills: vector registers kept in memory, of a lane, as the
    vendor counts them (NVIDIA: 4-byte words of local memory, where an instruction touches any). scalar_spills: scalar
    registers kept in lanes of vector registers (AMD). scratch: bytes of private memory a lane. shared: bytes a program.
    matrix: matrix instructions in the text. products: element types of tl.dot. code: bytes of machine code.
    seconds: wall time of the compiler.
    """

    case: str
    target: str
    error: str = ""
    registers: int = 0
    spills: int = 0
    scalar_spills: int = 0
    scratch: int = 0
    shared: int = 0
    matrix: int = 0
    products: tuple[str, ...] = ()
    code: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        return self.case, self.target


def _nested(value: Any) -> Any:
    return tuple(_nested(part) for part in value) if isinstance(value, list) else value


def _path(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _constant(value: Any) -> Any:
    if isinstance(value, dict):
        import triton.language as tl

        return tl.dtype(value["dtype"])
    return value


def function(case: Case) -> Any:
    """The kernel of a case. Raises CasesInvalid where there is no such kernel: the cases are older than the kernels."""
    from .cases import CasesInvalid

    module, _, name = case.kernel.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CasesInvalid(f"there is no kernel {case.kernel} ({error}): record the cases anew") from error


def require_backends(chosen: list[Target]) -> None:
    """Raises NoBackend for a target that the installed Triton does not compile for."""
    from triton.backends import backends
    from triton.backends.compiler import GPUTarget

    for target in chosen:
        made = GPUTarget(target.backend, target.arch, target.warp)
        if not any(each.compiler.supports_target(made) for each in backends.values()):
            found = ", ".join(sorted(backends)) or "none"
            raise NoBackend(f"this Triton has no backend for {target.name} ({target.backend}); it has: {found}")


def compile_case(case: Case, target: Target, cache: Path | None = None) -> Cell:
    """Compile a case for a target, or find it in the cache. A compiler's failure is a Cell with its error."""
    kept = None
    if cache is not None:
        kept = cache / f"{_cache_key(case, target)}.json"
        if kept.exists():
            read = json.loads(kept.read_text(encoding="utf-8"))
            return Cell(**{**read, "products": tuple(read["products"])})
    made = _compiled(case, target)
    if kept is not None:
        write_whole(kept, json.dumps(asdict(made)))
    return made


def _cache_key(case: Case, target: Target) -> str:
    """Changes with the case, the target, Triton, and the source of the kernel and of all that it calls."""
    import triton

    parts = (case.id, target.name, target.warp, triton.__version__, function(case).cache_key, "cell 2")
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]


def _compiled(case: Case, target: Target) -> Cell:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(
        function(case),
        {name: _nested(kind) for name, kind in case.signature.items()},
        {_path(path): _constant(value) for path, value in case.constants.items()},
        {_path(path): value for path, value in case.attributes.items()},
    )
    begin = time.perf_counter()
    try:
        with _silence():
            made = triton.compile(
                source, target=GPUTarget(target.backend, target.arch, target.warp), options=dict(case.options)
            )
    except Exception as error:  # any failure of the compiler, whatever its class, is this cell's result
        text = " ".join(str(error).split())[-300:]
        return Cell(case.id, target.name, error=f"{type(error).__name__}: {text}")
    seconds = time.perf_counter() - begin
    cell = Cell(case.id, target.name, shared=int(made.metadata.shared), seconds=round(seconds, 2))
    cell = replace(cell, products=_products(made.asm["ttir"]))
    return _measured_amd(cell, made.asm) if target.is_amd else _measured_nvidia(cell, made.asm)


class _silence:
    """Triton prints the whole PTX where ptxas fails; the error says what is needed."""

    def __enter__(self) -> None:
        self._kept = os.dup(1)
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), 1)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._kept, 1)
        os.close(self._kept)


def _products(ttir: str) -> tuple[str, ...]:
    found = set()
    for arguments, element in _DOT.findall(ttir):
        name = _ELEMENTS.get(element, element)
        found.add("tf32" if name == "fp32" and "tf32" in arguments else name)
    return tuple(sorted(found))


def _number(name: str, text: str) -> int:
    """A field of the kernel's metadata; 0 where the target has no such registers."""
    found = re.search(rf"^\s*\.{name}:\s*(\d+)", text, re.MULTILINE)
    return int(found.group(1)) if found else 0


def _code_bytes(binary: bytes) -> int:
    """Bytes of machine code of an ELF file: its .text sections."""
    from elftools.elf.elffile import ELFFile  # here: the lint shares this package and needs no more than click

    elf = ELFFile(io.BytesIO(binary))
    return sum(section["sh_size"] for section in elf.iter_sections() if section.name.startswith(".text"))


def _measured_amd(cell: Cell, asm: Any) -> Cell:
    text = asm["amdgcn"]
    return replace(
        cell,
        # .vgpr_count counts accumulation registers too where the target has them in one file.
        registers=_number("vgpr_count", text),
        spills=_number("vgpr_spill_count", text),
        scalar_spills=_number("sgpr_spill_count", text),
        scratch=_number("private_segment_fixed_size", text),
        shared=max(cell.shared, _number("group_segment_fixed_size", text)),
        matrix=len(_AMD_MATRIX.findall(text)),
        code=_code_bytes(asm["hsaco"]),
    )


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _measured_nvidia(cell: Cell, asm: Any) -> Cell:
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        listed = _output(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name)
        found = _RESOURCES.findall(listed)
        if len(found) != 1:
            raise RuntimeError(f"cuobjdump lists {len(found)} functions in a cubin of one kernel: {listed[:300]}")
        _, registers, stack, local = found[0]
        frame = int(stack) + int(local)
        # ptxas reserves a frame at times that no instruction touches: nothing was spilled then.
        if frame and not _LOCAL.search(_output(knobs.nvidia.nvdisasm.path, file.name)):
            frame = 0
    return replace(
        cell,
        registers=int(registers),
        # Triton's kernels have no arrays: what lies in a lane's frame is what registers had no room for.
        spills=-(-frame // 4),
        scratch=frame,
        matrix=len(_NVIDIA_MATRIX.findall(asm["ptx"])),
        code=_code_bytes(asm["cubin"]),
    )
