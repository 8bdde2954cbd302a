"""What an AMD card really computes, where no document says it: inputs and outputs of small kernels, bit by bit.

    python -m wavefront.record_vectors FILE                      on a machine with an AMD GPU, torch and Triton for ROCm
    python -m wavefront.record_vectors FILE --executed gfx942    the same kernels, executed by this package
    python -m wavefront.record_vectors FILE --check              execute a file's inputs again and compare

A file says the architecture and the versions, and nothing else about the machine. --check exits with 1 where the
executor is wrong by the rules of `Compared`.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from .driver import device
from .faults import UnsupportedInstruction, WavefrontError
from .target import target, targets
from .vector_cases import DTYPES, SIDE, Case, cases, from_text, to_text

FORMAT = 1
_BLOCK = 256
# Instructions without a bound relative to their result.
_LOOSE = ("v_sin_f32", "v_cos_f32")


def perform(case: Case, where: str) -> Tensor:
    """Run a case's kernel on a torch device; the output on the CPU."""
    from . import vector_kernels as kernels

    # A clone is aligned, and the case's own tensors stay as they are.
    inputs = [tensor.to(where).clone() for tensor in case.inputs]
    if case.kind == "dot":
        out = torch.empty((SIDE, SIDE), dtype=torch.float32, device=where)
        length = case.inputs[0].shape[1]
        kernels.dot_kernel[(1,)](*inputs, out, SIDE=SIDE, LENGTH=length, **case.options)
        return out.cpu()
    kernel = {
        "unary": kernels.unary_kernel,
        "instruction": kernels.instruction_kernel,
        "binary": kernels.binary_kernel,
        "convert": kernels.convert_kernel,
    }[case.kind]
    count = inputs[0].numel()
    out = torch.empty(count, dtype=DTYPES[case.result], device=where)
    kernel[(-(-count // _BLOCK),)](*inputs, out, count, BLOCK=_BLOCK, **case.options)
    return out.cpu()


def _versions() -> dict[str, str | None]:
    import triton

    driver = Path("/sys/module/amdgpu/version")
    return {
        "torch": str(torch.__version__),
        "triton": triton.__version__,
        "hip": torch.version.hip,
        "driver": driver.read_text(encoding="ascii").strip() if driver.exists() else None,
    }


def record(architecture: str, where: str, *, executed: bool) -> dict[str, Any]:
    """Every case of an architecture as plain data. One whose kernel does not compile says so in place of a result."""
    import triton
    from triton.runtime.errors import TritonError

    entries = []
    for case in cases(architecture.split(":")[0]):
        entry: dict[str, Any] = {"name": case.name, "kind": case.kind, "options": case.options, "result": case.result}
        entry["inputs"] = [to_text(tensor) for tensor in case.inputs]
        try:
            entry["output"] = to_text(perform(case, where))
        except (TritonError, triton.CompilationError, WavefrontError, NotImplementedError) as error:
            entry["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
        entries.append(entry)
    return {
        "format": FORMAT,
        "architecture": architecture,
        "executed": executed,
        "versions": _versions(),
        "cases": entries,
    }


def load(path: Path) -> tuple[str, list[tuple[Case, Tensor]]]:
    """Architecture without its features, and the cases that have a result. Raises ValueError for any other file."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"{path} is no vector file of format {FORMAT}")
    try:
        found = [
            (
                Case(
                    entry["name"],
                    entry["kind"],
                    tuple(from_text(each) for each in entry["inputs"]),
                    entry["result"],
                    entry["options"],
                ),
                from_text(entry["output"]),
            )
            for entry in data["cases"]
            if "output" in entry
        ]
        return str(data["architecture"]).split(":")[0], found
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no vector file: {error!r}") from error


@dataclass(frozen=True)
class Compared:
    """A case's recorded results beside the executor's. differing: elements whose bits differ, two NaN never do.

    worst: the largest difference: of conversions and integers in elements (none may differ), of functions in ulp, of
    dot products relative to the sum of the magnitudes, in 2**-24 a product (2 are allowed, as the oracle's kappa has
    it). An instruction that is documented to 1 ulp may differ by 2, and anyhow where its input or both results are
    subnormal, which units may cut. Sine and cosine, and functions that the compiler makes of several instructions,
    are told and never wrong.
    """

    name: str
    elements: int
    differing: int
    worst: float
    unit: str
    wrong: bool


def compare(case: Case, recorded: Tensor, executed: Tensor) -> Compared:
    """Judge the executor by what was recorded."""
    if recorded.shape != executed.shape or recorded.dtype != executed.dtype:
        return Compared(case.name, recorded.numel(), recorded.numel(), float("inf"), "shape", True)
    if not recorded.dtype.is_floating_point:
        differing = int((_bits(recorded) != _bits(executed)).sum())
        return Compared(case.name, recorded.numel(), differing, differing, "elements", differing > 0)
    one, two = _wide(recorded), _wide(executed)
    same = (_bits(recorded) == _bits(executed)) | (np.isnan(one) & np.isnan(two))
    differing = int((~same).sum())
    if case.kind == "convert":
        return Compared(case.name, recorded.numel(), differing, differing, "elements", differing > 0)
    with np.errstate(all="ignore"):
        if case.kind == "dot":
            a, b, c = (_wide(tensor) for tensor in case.inputs)
            size = np.nan_to_num(np.abs(a) @ np.abs(b) + np.abs(c), nan=np.inf)
            subnormal = _lost(a, b, case.inputs[0].dtype)
            off = np.abs(one - two) - subnormal - 2.0**-126
            error = np.where(same, 0.0, off / (size * a.shape[1] * 2.0**-24)).max(initial=0.0)
            return Compared(case.name, recorded.numel(), differing, float(error), "2**-24 a product", not error <= 2)
        spacing = np.spacing(np.maximum(np.abs(two), 2.0**-126).astype(np.float32)).astype(np.float64)
        error = np.where(same, 0.0, np.abs(one - two) / spacing)
    strict = case.kind == "instruction" and not case.name.startswith(_LOOSE)
    cut = (np.abs(_wide(case.inputs[0])) < 2.0**-126) | ((np.abs(one) <= 2.0**-126) & (np.abs(two) <= 2.0**-126))
    wrong = strict and not bool((cut | (error <= 2)).all())
    return Compared(case.name, recorded.numel(), differing, float(error.max(initial=0.0)), "ulp", wrong)


def _bits(tensor: Tensor) -> Any:
    size = tensor.dtype.itemsize
    return tensor.contiguous().view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]).numpy()


def _wide(tensor: Tensor) -> Any:
    return tensor.to(torch.float32).to(torch.float64).numpy()


def _lost(a: Any, b: Any, dtype: torch.dtype) -> Any:
    """What reading subnormal inputs as zero may change: allowed in a matrix unit."""
    least = torch.finfo(dtype).tiny
    kept_a, kept_b = np.where(np.abs(a) < least, 0, a), np.where(np.abs(b) < least, 0, b)
    return np.nan_to_num(np.abs(a) @ np.abs(b) - np.abs(kept_a) @ np.abs(kept_b), nan=0.0, posinf=0.0)


def _hardware() -> str:
    if torch.version.hip is None or not torch.cuda.is_available():
        raise click.UsageError("no AMD GPU with torch for ROCm: record there, or use --executed TARGET")
    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).gcnArchName)


def _check(path: Path) -> bool:
    """Whether the executor agrees; a line for every case that differs at all."""
    architecture, found = load(path)
    told, refused = [], 0
    with device(target(architecture).name):
        for case, recorded in found:
            try:
                told.append(compare(case, recorded, perform(case, "cpu")))
            except UnsupportedInstruction as error:
                refused += 1
                click.echo(f"not executed: {case.name}: {error}")
    for each in told:
        if each.differing:
            verdict = "WRONG" if each.wrong else "differs"
            where = f"{each.differing} of {each.elements}, at most {each.worst:.3g} {each.unit}"
            click.echo(f"{verdict}: {each.name}: {where}")
    wrong = sum(each.wrong for each in told)
    same = sum(not each.differing for each in told)
    counts = f"{len(found)} cases, {same} the same to the bit, {wrong} wrong, {refused} not modelled"
    click.echo(f"{path.name}: {architecture}: {counts}")
    return wrong == 0 and len(told) > 0


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--executed", metavar="TARGET", help="record what this package computes, and no hardware")
@click.option("--check", is_flag=True, help="compare FILE with what this package computes")
def main(path: Path, executed: str | None, check: bool) -> None:
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise click.UsageError("TRITON_INTERPRET=1 is set: kernels would be interpreted and not compiled")
    if check and executed:
        raise click.UsageError("--check takes the target from the file: leave --executed out")
    if executed and executed not in targets():
        raise click.UsageError(f"--executed must be one of {', '.join(targets())}, got {executed}")
    if check:
        try:
            sys.exit(0 if _check(path) else 1)
        except (OSError, ValueError) as error:
            raise click.UsageError(str(error)) from error
    with ExitStack() as stack:
        if executed:
            stack.enter_context(device(executed))
        data = record(executed or _hardware(), "cpu" if executed else "cuda", executed=bool(executed))
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    failed = [entry for entry in data["cases"] if "error" in entry]
    for entry in failed:
        click.echo(f"not recorded: {entry['name']}: {entry['error']}")
    click.echo(f"{len(data['cases']) - len(failed)} cases of {data['architecture']} in {path}")


if __name__ == "__main__":
    main(prog_name="python -m wavefront.record_vectors")
