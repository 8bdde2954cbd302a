"""The plan of a run: which parts, with how many problems each. Every worker and the command line compute the same."""

from __future__ import annotations

from dataclasses import dataclass

from .backends import Backend
from .explore import Part, part_seed
from .implementation import STAGES, Declaration
from .profiles import Profile, landmark_problems, model_problems
from .registry import FIXED_KINDS, Property, all_properties


@dataclass(frozen=True)
class RunOptions:
    """What the user asked for. `problems` replaces the profile's total; `seed` its fixed seed 0."""

    implementation: str
    backend: str
    profile: str
    stages: tuple[str, ...] = ()
    seed: int = 0
    problems: int | None = None


def chosen_properties(options: RunOptions, backend: Backend, declaration: Declaration) -> list[Property]:
    """The properties this run checks: the stages asked for, as far as implementation and backend allow."""
    wanted = options.stages or STAGES
    return [
        prop
        for prop in all_properties().values()
        if prop.stage in wanted
        and backend.name in prop.backends
        and set(prop.stages) <= set(declaration.stages)
        and all(getattr(declaration, need) for need in prop.needs)
    ]


def parts(prop: Property, options: RunOptions, profile: Profile, declaration: Declaration) -> list[Part]:
    """The parts of one property: dtype by dtype, slice by slice."""
    kind = prop.problems
    if kind == "models" and not profile.models:
        return []
    slices = 1 if kind in FIXED_KINDS else profile.slices
    total_share = sum(p.share for p in all_properties().values())
    total = options.problems or profile.problems
    each = total * prop.share / total_share / (len(declaration.dtypes) * slices)
    made = []
    for dtype in declaration.dtypes:
        if kind in FIXED_KINDS and not _fixed(kind, dtype):
            continue
        for index in range(slices):
            draws = 0 if kind in FIXED_KINDS else max(1, round(each))
            made.append(Part(prop, dtype, index, draws, part_seed(options.seed, prop.name, dtype, index)))
    return made


def _fixed(kind: str, dtype: str) -> int:
    return len(model_problems(dtype) if kind == "models" else landmark_problems(kind, dtype))


def expected_problems(made: list[Part]) -> int:
    """How many problems the parts will run, roughly: drawn ones and fixed ones."""
    return sum(part.draws + (_fixed(part.property.problems, part.dtype) if part.index == 0 else 0) for part in made)
