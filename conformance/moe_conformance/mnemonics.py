"""Every mnemonic that the shipped kernels compile to, by target and Triton version, and whether the executor knows each
use of it.

    python -m moe_conformance.mnemonics            compile everything, compare with data/mnemonics.toml
    python -m moe_conformance.mnemonics --write    and keep what was met, beside what other versions met

What is compared with is the listing of the Triton at hand; a Triton that has none is compared with the newest that has.
An instruction that is not modelled, or a missing wait, fails; a mnemonic that the listing lacks is drift, to be looked
at before the listing is written anew. data/mnemonics_known.toml holds findings that were looked
at: faults of a compiler, and limits of the lint. Nothing is executed.

Exit codes: 0 every use is modelled and no wait is missing; 1 not so (with --strict also: there is drift); 2 the call is
wrong.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import click

from . import executed

EXIT_FAILED = 1
FILE = Path(__file__).parent / "data" / "mnemonics.toml"
KNOWN = Path(__file__).parent / "data" / "mnemonics_known.toml"
_HEADER = """\
# Mnemonics (without their encoding's suffix) that the kernels of tritonmoe compile to: every row of the tile table that
# the target's shared memory admits, bf16, fp16 and fp32, vector, masked, odd and far shapes, every router rule.
# By target: `every` was met with every Triton version listed, `some` with the versions that stand beside it.
# Written by `python -m moe_conformance.mnemonics --write`, which replaces one version; do not edit.
"""

# Mnemonics by target, by Triton version.
Listing = dict[str, dict[str, set[str]]]


@dataclass
class Met:
    """What the kernels of one target compiled to. wrong: uses not modelled, missing waits, builds that failed.

    seconds: of a processor's time.
    """

    target: str
    kernels: int = 0
    instructions: int = 0
    seconds: float = 0.0
    mnemonics: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Met) -> None:
        self.kernels += other.kernels
        self.instructions += other.instructions
        self.seconds += other.seconds
        self.mnemonics |= other.mnemonics
        self.wrong += other.wrong


class _Launcher:
    """Stands for Triton's launcher: a kernel is compiled, and its start does nothing."""

    def __init__(self, src: Any, metadata: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> None:
        pass


@contextmanager
def compiling(target: str) -> Iterator[None]:
    """Inside, Triton kernels on CPU tensors are compiled for a target and not executed."""
    from triton.runtime import driver

    import wavefront

    with wavefront.device(target):
        driver.active.launcher_cls = _Launcher
        yield


@cache
def _kernels() -> tuple[Any, ...]:
    """Every kernel of tritonmoe that is launched or called by one."""
    import importlib
    import pkgutil

    from triton.runtime.jit import JITFunction

    from tritonmoe import stages

    modules = [importlib.import_module(f"{stages.__name__}.{m.name}") for m in pkgutil.iter_modules(stages.__path__)]
    found = {
        id(value): value for module in modules for value in vars(module).values() if isinstance(value, JITFunction)
    }
    return tuple(found.values())


def _texts() -> list[tuple[str, str]]:
    """Name and assembly of what was compiled since the last call."""
    found = []
    for kernel in _kernels():
        for compiled, *_ in list(kernel.device_caches.values()):
            found += [(f"{one.metadata.name}-{one.metadata.hash[:8]}", one.asm["amdgcn"]) for one in compiled.values()]
        kernel.device_caches.clear()
    return found


def gather(target: str, group: str) -> Met:
    """Compile one group of builds for a target and read the texts; in a process with TRITON_INTERPRET=0."""
    import triton
    from triton.runtime.errors import TritonError

    import wavefront
    from wavefront.listing import Listings
    from wavefront.waits import findings

    from .mnemonic_cases import builds

    begin = time.process_time()
    met, listings = Met(target), Listings()
    with compiling(target):
        for name, call in builds(group, target, wavefront.target(target).lds):
            try:
                call()
            except (TritonError, triton.CompilationError) as error:
                met.wrong.append(f"{target}: {name} does not compile: {' '.join(str(error).split())[:300]}")
        for name, text in _texts():
            kernel = wavefront.parse(text)
            if kernel.target != target:
                raise RuntimeError(f"{name} was compiled for {kernel.target} and not for {target}")
            listings.take(kernel, name)
            met.kernels += 1
            met.instructions += len(kernel.instructions)
            try:
                met.wrong += [f"{target}: {name}: {each}" for each in findings(kernel)]
            except wavefront.WavefrontError as error:
                met.wrong.append(f"{target}: {name}: {error}")
    for listing in listings.by_target.values():
        met.mnemonics |= set(listing.counts)
        met.wrong += [f"{target}: {each.reason} in {each.where}" for each in listing.unsupported]
    met.seconds = time.process_time() - begin
    return met


def gather_all(
    targets: Sequence[str], processes: int, told: Callable[[Met, str], None] = lambda met, group: None
) -> list[Met]:
    """Every group of every target, in processes of their own: Triton compiles in one thread. One Met a target."""
    from .mnemonic_cases import GROUPS

    jobs = [(target, group) for group in GROUPS for target in targets]
    whole = {target: Met(target) for target in targets}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        waiting = {job: pool.submit(gather, *job) for job in jobs}
        for (target, group), future in waiting.items():
            met = future.result()
            told(met, group)
            whole[target].add(met)
    return list(whole.values())


def _in_order(version: str) -> tuple[int, ...]:
    """What versions are sorted by; of "3.8.0+git1234" the numbers before the sign."""
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())


def listed(path: Path = FILE) -> Listing:
    """What is kept: the mnemonics of each target, by version."""
    read = tomllib.loads(path.read_text(encoding="utf-8"))
    found: Listing = {version: {} for version in read.pop("versions")}
    for version, targets in found.items():
        for target, entry in read.items():
            if version in entry["versions"]:
                targets[target] = {*entry["every"], *(name for name, met in entry["some"].items() if version in met)}
    return found


def written(listing: Listing) -> str:
    """The listing as TOML."""
    versions = sorted(listing, key=_in_order)
    lines = [_HEADER, f"versions = {json.dumps(versions)}"]
    for target in dict.fromkeys(target for version in versions for target in listing[version]):
        by_version = {version: listing[version][target] for version in versions if target in listing[version]}
        every = set.intersection(*by_version.values())
        lines += ["", f"[{target}]", f"versions = {json.dumps(list(by_version))}", "every = ["]
        lines += [*(f'  "{name}",' for name in sorted(every)), "]", f"[{target}.some]"]
        for name in sorted(set.union(*by_version.values()) - every):
            lines.append(f"{name} = {json.dumps([v for v, met in by_version.items() if name in met])}")
    return "\n".join(lines) + "\n"


def compared_with(version: str, listing: Listing) -> str:
    """The listed version to compare a Triton with: its own, or the newest."""
    plain = version.split("+")[0]
    return plain if plain in listing else max(listing, key=_in_order)


def drift(met: Met, known: set[str]) -> tuple[list[str], list[str]]:
    """Mnemonics that are new, and those no longer met."""
    return sorted(met.mnemonics - known), sorted(known - met.mnemonics)


def without_known(wrong: Sequence[str], version: str, targets: Sequence[str], path: Path = KNOWN) -> list[str]:
    """The findings that are not known, and a line for each entry whose number of findings is another one today."""
    left = list(wrong)
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["known"]:
        if entry["triton"] != version.split("+")[0] or entry["target"] not in targets:
            continue
        begin = f"{entry['target']}: {entry['kernel']}"
        found = [line for line in left if line.startswith(begin) and entry["finding"] in line]
        if len(found) == entry["count"]:
            left = [line for line in left if line not in found]
        else:
            left.append(f"{begin}: {entry['count']} known findings of `{entry['finding']}`, now {len(found)}")
    return left


def _told(met: Met, group: str) -> None:
    click.echo(f"{met.target} {group}: {met.kernels} kernels in {met.seconds:.0f} s of CPU time", err=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
@click.option("--target", "targets", multiple=True, type=click.Choice(executed.TARGETS), help="only this target")
@click.option("--write", "write", is_flag=True, help="keep what was met as the listing of this Triton")
@click.option("--strict", is_flag=True, help="drift fails too")
@click.option("--processes", default=2, show_default=True, type=click.IntRange(1, 64))
@click.option("--file", "path", default=FILE, type=click.Path(path_type=Path, dir_okay=False), help="another listing")
def main(targets: tuple[str, ...], write: bool, strict: bool, processes: int, path: Path) -> None:
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise click.UsageError("TRITON_INTERPRET=1 is set: kernels would be interpreted and not compiled")
    if write and targets:
        raise click.UsageError("--write keeps every target: leave --target out")
    if not write and not path.exists():
        raise click.UsageError(f"there is no listing {path}: make one with --write")
    os.environ["TRITON_INTERPRET"] = "0"
    import triton

    begin = time.monotonic()
    found = gather_all(targets or executed.TARGETS, processes, _told)
    wrong = [line for met in found for line in met.wrong]
    if write:
        kept = listed(path) if path.exists() else {}
        kept[triton.__version__.split("+")[0]] = {met.target: met.mnemonics for met in found}
        path.write_text(written(kept), encoding="utf-8")
    every = listed(path)
    version = compared_with(triton.__version__, every)
    known = every[version]
    click.echo(f"Triton {triton.__version__}, compared with the listing of {version}")
    drifted = False
    for met in found:
        new, gone = drift(met, known.get(met.target, set()))
        drifted |= bool(new)
        click.echo(
            f"{met.target}: {met.kernels} kernels, {met.instructions} instructions, {len(met.mnemonics)} mnemonics"
        )
        if new:
            click.echo(f"  not in the listing: {' '.join(new)}")
        if gone:
            click.echo(f"  in the listing, not met: {' '.join(gone)}")
    left = without_known(wrong, triton.__version__, [met.target for met in found])
    for line in left:
        click.echo(line)
    click.echo(f"{len(left)} findings, {len(set(wrong) - set(left))} known ones, in {time.monotonic() - begin:.0f} s")
    if left or (strict and drifted):
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main(prog_name="python -m moe_conformance.mnemonics")
