"""Records of several platforms side by side: one source, the same problems, verdict by verdict."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from ..record import Case, Record
from ..registry import all_properties
from .distributions import Spread, flagged, spread
from .reading import label, platform, size_class

GATE = "gate"
Key = tuple[str, str]


class NotComparable(ValueError):
    """The Records are not of one source and one contract: nothing about portability follows from them."""


def _fields_that_must_agree(record: Record) -> dict[str, object]:
    return {
        "source digest": record.source_digest,
        "implementation": record.implementation,
        "contract (digest of SPEC.md)": record.spec_digest,
        "version of the suite": record.suite,
        "profile": record.profile,
        "seed": record.seed,
    }


def require_comparable(records: Sequence[Record], names: Sequence[str]) -> None:
    """Raises NotComparable where the Records differ in source, implementation, contract, profile or seed."""
    first = _fields_that_must_agree(records[0])
    for record, name in zip(records[1:], names[1:], strict=True):
        for field_name, value in _fields_that_must_agree(record).items():
            if value != first[field_name]:
                raise NotComparable(
                    f"different {field_name}: {names[0]} has {first[field_name]}, {name} has {value}. "
                    "Only runs of one source under one contract can be compared"
                )


@dataclass(frozen=True)
class Disagreement:
    """One problem with different outcomes."""

    property: str
    problem: str
    outcomes: tuple[str, str]
    worst: tuple[float, float]


@dataclass
class Pair:
    """Two Records. by_design: cases of properties that the other platform does not check, or of its other sizes.

    missing: how many cases each should have run and did not.
    """

    labels: tuple[str, str]
    common: int
    by_design: tuple[int, int]
    missing: tuple[int, int]
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    disagreements: list[Disagreement] = field(default_factory=list)
    spreads: list[Spread] = field(default_factory=list)

    @property
    def flagged(self) -> list[Spread]:
        return flagged(self.spreads)


def _cases(record: Record) -> dict[Key, Case]:
    return {(case.property, case.problem): case for case in record.cases}


def _checked_on(name: str, record: Record) -> bool:
    """Whether a property is checked on a Record's platform; an unknown one (a later suite's) is taken to be."""
    prop = all_properties().get(name)
    return prop is None or platform(record) in prop.backends


def compare(first: Record, second: Record) -> Pair:
    """Two comparable Records."""
    cases = _cases(first), _cases(second)
    common = sorted(cases[0].keys() & cases[1].keys())
    labels = label(first), label(second)
    same_class = size_class(first) == size_class(second)
    by_design, missing = [0, 0], [0, 0]
    for index, other in ((0, second), (1, first)):
        for prop, _ in cases[index].keys() - cases[1 - index].keys():
            if same_class and _checked_on(prop, other):
                missing[1 - index] += 1
            else:
                by_design[index] += 1
    pair = Pair(labels, len(common), (by_design[0], by_design[1]), (missing[0], missing[1]))
    worst: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for key in common:
        one, two = cases[0][key], cases[1][key]
        pair.outcomes[one.outcome, two.outcome] += 1
        if one.outcome != two.outcome:
            found = Disagreement(*key, outcomes=(one.outcome, two.outcome), worst=(one.worst, two.worst))
            pair.disagreements.append(found)
        worst[key[0]][0].append(one.worst)
        worst[key[0]][1].append(two.worst)
    # Claims without an error (bits that agree or not) have no distribution.
    with_errors = {name: values for name, values in worst.items() if any(values[0]) or any(values[1])}
    pair.spreads = [spread(name, *values) for name, values in sorted(with_errors.items())]
    return pair


@dataclass
class Comparison:
    """All pairs of several Records, and why they do not show that the platforms agree.

    unfit: what is wrong with a Record by itself; differences: what is wrong with two of them side by side.
    """

    records: list[Record]
    pairs: list[Pair]
    unfit: list[str]
    differences: list[str]

    @property
    def reasons(self) -> list[str]:
        return self.unfit + self.differences


def compare_all(records: Sequence[Record], names: Sequence[str]) -> Comparison:
    """Every pair. Raises NotComparable."""
    require_comparable(records, names)
    pairs = [compare(a, b) for a, b in combinations(records, 2)]
    reasons, differences = [], []
    for record in records:
        if record.verdict != "passed":
            reasons.append(f"{label(record)}: the run's verdict is {record.verdict}")
        if record.partial:
            reasons.append(f"{label(record)}: a partial run ({', '.join(record.partial)})")
        if record.profile != GATE:
            reasons.append(f"{label(record)}: profile {record.profile} and not {GATE}")
        if record.dirty is not False:
            state = "uncommitted changes" if record.dirty else "no checkout behind it"
            reasons.append(f"{label(record)}: run with {state}: the suite that judged is not known")
    for pair in pairs:
        both = " and ".join(pair.labels)
        if not pair.common:
            differences.append(f"{both}: not one problem in common")
        for name, count in zip(pair.labels, pair.missing, strict=True):
            if count:
                differences.append(f"{both}: {count} cases were not run by {name}")
        if pair.disagreements:
            differences.append(f"{both}: {len(pair.disagreements)} problems with different outcomes")
    return Comparison(list(records), pairs, reasons, differences)
