"""The plan of a run: which parts, with how many problems each. Every worker and the command line compute the same."""

from __future__ import annotations

from dataclasses import dataclass

from .backends import Backend
from .explore import Part, part_seed
from .implementation import STAGES, Declaration
from .profiles import Profile, fixed_problems
from .registry import Property, all_properties
from .shards import Shard


@dataclass(frozen=True)
class RunOptions:
    """What the user asked for. `problems` replaces the profile's total; `seed` its fixed seed 0. With a `shard`, all
    problems are drawn and only that shard's are run."""

    implementation: str
    backend: str
    profile: str
    stages: tuple[str, ...] = ()
    seed: int = 0
    problems: int | None = None
    shard: Shard | None = None


def chosen_properties(options: RunOptions, backend: Backend, declaration: Declaration) -> list[Property]:
    """The properties this run checks: the stages asked for, as far as implementation and backend allow."""
    wanted = options.stages or STAGES
    return [
        prop
        for prop in all_properties().values()
        if prop.stage in wanted
        and backend.platform in prop.backends
        and set(prop.stages) <= set(declaration.stages)
        and all(getattr(declaration, need) for need in prop.needs)
        and (not prop.kind.activations or set(prop.kind.activations) & set(declaration.activations))
    ]


def parts(prop: Property, options: RunOptions, profile: Profile, declaration: Declaration) -> list[Part]:
    """The parts of one property: dtype by dtype, slice by slice."""
    if prop.problems == "models" and not profile.models:
        return []
    # Fixed problems alone are the heavy ones, or one or two: in slices, workers would wait for each other's device.
    slices = profile.slices if prop.kind.drawn else 1
    total_share = sum(p.share for p in all_properties().values())
    total = options.problems or profile.problems
    each = total * prop.share / total_share / (len(declaration.dtypes) * slices)
    made = []
    for dtype in (name for name in declaration.dtypes if name in prop.dtypes):
        if not prop.kind.drawn and not fixed_problems(prop.problems, dtype):
            continue
        for index in range(slices):
            draws = max(1, round(each)) if prop.kind.drawn else 0
            made.append(Part(prop, dtype, index, draws, part_seed(options.seed, prop.name, dtype, index), slices))
    return made


def partial(options: RunOptions) -> list[str]:
    """The options that make this run a part of its profile; empty for a whole run."""
    asked = narrowed(options)
    return asked + ([f"--shard {options.shard}"] if options.shard is not None else [])


def narrowed(options: RunOptions) -> list[str]:
    """Of them, those that a merge of all shards does not undo."""
    asked = [f"--stage {stage}" for stage in options.stages]
    return asked + ([f"--problems {options.problems}"] if options.problems is not None else [])


# Declares whatever makes a property run.
FULL = Declaration("everything", checks_arguments=True, capturable=True, uses_triton=True)


def reach(options: RunOptions, backend: Backend, profile: Profile, declaration: Declaration) -> float:
    """The share of a full declaration's plan that is left for `declaration`, from 0 to 1."""

    def planned(declared: Declaration) -> int:
        properties = chosen_properties(options, backend, declared)
        made = [part for prop in properties for part in parts(prop, options, profile, declared)]
        return expected_problems(made, declared)

    return min(1.0, planned(declaration) / max(1, planned(FULL)))


def expected_problems(made: list[Part], declaration: Declaration) -> int:
    """How many problems the parts will run, roughly: drawn ones and fixed ones."""
    return sum(part.draws + len(part.fixed(declaration)) for part in made)
