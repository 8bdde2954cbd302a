"""What the dispatcher would choose: each target's limits, each model of models.toml, each number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .baseline import Baseline
from .cases import Case
from .known import Known
from .matrix import findings_of
from .recording import launches, model_problems
from .targets import Target

DTYPES = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Choice:
    """The kernels of one forward. products: those that the baseline says multiply matrices, with their tiles."""

    target: str
    model: str
    tokens: int
    dtype: str
    kernels: tuple[Case, ...]

    def tiles(self, baseline: Baseline) -> list[str]:
        """Each product's function, blocks, warps and stages in one word."""
        found = []
        for case in self.kernels:
            cell = baseline.cells.get((case.id, self.target))
            if cell is not None and cell.products:
                found.append(tile_of(case))
        return found


def tile_of(case: Case) -> str:
    """Function, blocks, warps and stages of a launch: "gate_up 16x64x128 w4 s3"."""
    constants = case.named_constants()
    blocks = [str(constants[name]) for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K") if name in constants]
    options = f"w{case.options.get('num_warps', '?')} s{case.options.get('num_stages', '?')}"
    return f"{case.kernel.partition(':')[2].removesuffix('_kernel')} {'x'.join(blocks)} {options}"


def choices(chosen: list[Target], dtypes: tuple[str, ...] = DTYPES) -> Iterator[Choice]:
    """Every forward, by driving the launchers. In a process with TRITON_INTERPRET=0."""
    for target in chosen:
        for dtype in dtypes:
            for model, problem in model_problems(dtype):
                yield Choice(target.name, model, problem.tokens, dtype, tuple(launches(target, problem)))


def complaints(
    choice: Choice, baseline: Baseline, known: Mapping[str, Case], entries: Sequence[Known] = ()
) -> list[str]:
    """Why a choice is not one that the matrix shows to be sound, known findings left out."""
    found = []
    where = f"{choice.target} {choice.model} T={choice.tokens} {choice.dtype}"
    for case in choice.kernels:
        if case.id not in known or choice.target not in known[case.id].levels:
            found.append(f"{where}: {case.describe()} is not among the compile cases: record them anew")
            continue
        cell = baseline.cells.get((case.id, choice.target))
        if cell is None:
            found.append(f"{where}: {case.describe()} is not in the baseline: compile --full --write")
            continue
        for each in findings_of(cell, case):
            if not any(entry.describes(each, case) for entry in entries):
                found.append(f"{where}: {each.message}")
    return found
