"""Records of the shards of one run, joined into the Record of the whole: no problem is missing, none counted twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from .. import verdict
from ..contract import requirements
from ..record import Case, Part, Record, Spread, Tally, problem_set_digest, spread
from ..shards import Shard
from ..waivers import WaiverUse


class NotMergeable(ValueError):
    """The Records are not the shards of one run."""


def merge_shards(records: Sequence[Record], names: Sequence[str]) -> Record:
    """The Record of the whole run, judged as a whole. Raises NotMergeable."""
    shards = _require_one_run(records, names)
    _require_every_shard(shards, names)
    for record, shard, name in zip(records, shards, names, strict=True):
        strangers = [case.problem for case in record.cases if not shard.holds(case.problem)]
        if strangers:
            raise NotMergeable(f"{name}: problem {strangers[0]} does not belong to shard {shard}")
    first = records[0]
    cases = sorted((case for record in records for case in record.cases), key=lambda c: (c.property, c.problem))
    parts = _parts(records, names)
    _require_all_problems(cases, parts, records)
    tallies = _tallies(records)
    waived = _waivers(records)
    coverage = sorted({feature for record in records for feature in record.coverage})
    failures = [failure for record in records for failure in record.failures]
    reasons = verdict.failures(cases, len(failures)) + [use.complaint for use in waived if use.complaint]
    failed = bool(reasons)
    for record, name in zip(records, names, strict=True):
        if record.verdict != "passed":
            reasons.append(f"shard {record.shard} ({name}) {record.verdict}: {'; '.join(record.reasons[:2])}")
    reasons += verdict.shortfalls(first.expected, cases, tallies, coverage, failed=failed)
    partial = [option for option in first.partial if not option.startswith("--shard ")]
    return first.model_copy(
        update={
            "partial": partial,
            "floor": None if partial else first.expected.floor,
            "shard": None,
            "rounds": max(record.rounds for record in records),
            "dirty": next((r.dirty for r in records if r.dirty is not False), False),
            "workers": sum(record.workers for record in records),
            "started": min(record.started for record in records),
            "seconds": max(record.seconds for record in records),
            "problem_set": problem_set_digest(cases),
            "verdict": "failed" if failed else "incomplete" if reasons else "passed",
            "reasons": reasons,
            "requirements": tallies,
            "coverage": coverage,
            "missing_coverage": verdict.missing(first.expected, coverage),
            "failures": failures,
            "waivers": waived,
            "cases": cases,
            "parts": {name: part.model_copy(update={"problems": []}) for name, part in parts.items()},
        }
    ).sealed()


def _of_one_run(record: Record) -> dict[str, object]:
    """What the shards of one run have in common."""
    environment = record.environment
    return {
        "source digest": record.source_digest,
        "implementation": record.implementation,
        "contract (digest of SPEC.md)": record.spec_digest,
        "version of the suite": record.suite,
        "commit": record.commit,
        "profile": record.profile,
        "seed": record.seed,
        "options": [option for option in record.partial if not option.startswith("--shard ")],
        "plan": record.expected,
        "repair of the interpreter": record.interpreter_repair,
        "waivers": [(use.id, use.expires) for use in record.waivers],
        **{name: environment.get(name) for name in ("backend", "device", "architecture", "packages", "driver")},
    }


def _require_one_run(records: Sequence[Record], names: Sequence[str]) -> list[Shard]:
    shards = []
    first = _of_one_run(records[0])
    for record, name in zip(records, names, strict=True):
        if record.shard is None:
            raise NotMergeable(f"{name} is no shard: it was run without --shard, or is merged already")
        shards.append(Shard.parse(record.shard))
        for what, value in _of_one_run(record).items():
            if value != first[what]:
                raise NotMergeable(f"different {what}: {names[0]} has {first[what]}, {name} has {value}")
    return shards


def _require_every_shard(shards: Sequence[Shard], names: Sequence[str]) -> None:
    if len({shard.count for shard in shards}) > 1:
        raise NotMergeable(f"different numbers of shards: {', '.join(map(str, shards))}")
    seen = dict[int, str]()
    for shard, name in zip(shards, names, strict=True):
        if shard.index in seen:
            raise NotMergeable(f"shard {shard} is there twice: {seen[shard.index]} and {name}")
        seen[shard.index] = name
    absent = sorted(set(range(1, shards[0].count + 1)) - set(seen))
    if absent:
        raise NotMergeable(f"missing: {', '.join(str(Shard(index, shards[0].count)) for index in absent)}")


def _parts(records: Sequence[Record], names: Sequence[str]) -> dict[str, Part]:
    """Every part, its time summed. Raises NotMergeable where shards that came to its end drew different problems."""
    made: dict[str, Part] = {}
    for record, name in zip(records, names, strict=True):
        for part, found in record.parts.items():
            known = made.get(part)
            if known is None:
                made[part] = found
                continue
            if not known.stopped and not found.stopped and known.problems != found.problems:
                raise NotMergeable(f"{name} drew other problems than {names[0]} in {part}")
            whole = found if known.stopped else known
            seconds, stopped = round(known.seconds + found.seconds, 3), known.stopped or found.stopped
            made[part] = Part(seconds=seconds, stopped=stopped, problems=whole.problems)
    return dict(sorted(made.items()))


def _require_all_problems(cases: list[Case], parts: dict[str, Part], records: Sequence[Record]) -> None:
    """Raises NotMergeable where a problem that was drawn is in no shard, or one in a shard was not drawn.

    Nothing is known of properties a part of which stopped early, or was lost in a shard: the verdict names those.
    """
    wanted, ran = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    open_ones = {name.partition("[")[0] for name, part in parts.items() if part.stopped}
    open_ones |= {
        name.partition("[")[0] for record in records for name in set(record.expected.parts) - set(record.parts)
    }
    for name, part in parts.items():
        wanted[name.partition("[")[0]] |= set(part.problems)
    for case in cases:
        ran[case.property].add(case.problem)
    for prop in sorted((wanted.keys() | ran.keys()) - open_ones):
        if gaps := wanted[prop] - ran[prop]:
            raise NotMergeable(f"{len(gaps)} problems of {prop} are in no shard, {min(gaps)} for one")
        if others := ran[prop] - wanted[prop]:
            raise NotMergeable(f"{prop}: problem {min(others)} was run and is not one that was drawn")


def _tallies(records: Sequence[Record]) -> list[Tally]:
    """Counts added up, and distributions of all values together."""
    by_requirement = defaultdict[str, list[Tally]](list)
    for record in records:
        for tally in record.requirements:
            by_requirement[tally.requirement].append(tally)
    return [_tally(by_requirement[name]) for name in requirements() if name in by_requirement]


def _tally(found: list[Tally]) -> Tally:
    worst = max(sorted(found, key=lambda tally: tally.worst_problem or ""), key=lambda tally: tally.worst)
    tiers = defaultdict[str, list[Spread]](list)
    for tally in found:
        for name, one in tally.tiers.items():
            tiers[name].append(one)
    return worst.model_copy(
        update={
            **{n: sum(getattr(t, n) for t in found) for n in ("problems", "passed", "failed", "refused", "waived")},
            "tiers": {name: _joined(ones) for name, ones in sorted(tiers.items())},
        }
    )


def _joined(ones: Iterable[Spread]) -> Spread:
    found = list(ones)
    values = [value for one in found for value in one.values]
    return spread(values, sum(one.failed for one in found), sum(one.refused for one in found))


def _waivers(records: Sequence[Record]) -> list[WaiverUse]:
    """What became of each waiver in the whole run: one that no problem of a shard met may have met one of another."""
    made = []
    for uses in zip(*(record.waivers for record in records), strict=True):
        matched, waived = sum(use.matched for use in uses), sum(use.waived for use in uses)
        status = uses[0].status
        if status in ("used", "unmatched", "unexpected pass"):
            status = "used" if waived else "unexpected pass" if matched else "unmatched"
        made.append(uses[0].model_copy(update={"status": status, "matched": matched, "waived": waived}))
    return made
