"""Certificates: what whole, clean, passed runs of the gate showed, in one file that can be checked against git."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, ValidationError

from ..mutants.matrix import Matrix as MutantMatrix
from ..portability import baseline as kept
from ..portability.cases import LEVELS, POSSIBLE, Case
from ..portability.matrix import findings_of
from ..record import Record
from ..waivers import WaiverUse
from .comparison import GATE, Comparison, NotComparable, compare_all
from .reading import label
from .repository import BASELINE, SPEC, Repository


class NoCertificate(ValueError):
    """The Records do not deserve one; the message lists every reason."""


class CertificateInvalid(ValueError):
    """A file is no certificate, or not as it was issued."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Verdict(_Model):
    """One requirement on one platform. worst: the largest error/bound, 1 being the edge."""

    requirement: str
    title: str
    problems: int
    passed: int
    refused: int
    waived: int
    worst: float
    worst_problem: str | None


class Run(_Model):
    """One Record, summed up. record: its seal."""

    label: str
    record: str
    device: str
    architecture: str
    driver: str
    packages: dict[str, str]
    interpreter_repair: str | None
    profile: str
    seed: int
    started: str
    seconds: float
    problem_set: str
    problems: int
    floor: int
    outcomes: dict[str, int]
    verdicts: list[Verdict]
    waivers: list[WaiverUse]

    @property
    def worst(self) -> Verdict:
        return max(self.verdicts, key=lambda verdict: verdict.worst)


class Agreement(_Model):
    """Two runs on their common problems."""

    labels: tuple[str, str]
    common: int
    missing: int
    disagreements: int
    flagged: list[str]


class Mutation(_Model):
    """The score of the suite that judged: planted defects seen, of those that could be."""

    backend: str
    profile: str
    killed: int
    judged: int
    rate: float


class Compiled(_Model):
    """The compile matrix of one target: cells, those that a model's sizes choose, and what is wrong with either."""

    target: str
    cells: int
    chosen: int
    chosen_findings: int
    possible_findings: int


class Certificate(_Model):
    """All of it. seal: SHA-256 of everything else; it shows a change, and is no signature."""

    schema_version: Literal[1] = 1
    suite: str
    commit: str
    implementation: str
    source_digest: str
    spec_digest: str
    runs: list[Run]
    agreements: list[Agreement]
    mutation: Mutation | None
    compiled_by: str | None
    compiled: list[Compiled]
    baseline_digest: str | None
    seal: str | None = None

    def digest(self) -> str:
        return hashlib.sha256(self.model_dump_json(exclude={"seal"}).encode()).hexdigest()

    def sealed(self) -> Certificate:
        return self.model_copy(update={"seal": self.digest()})

    def html(self) -> str:
        """One page, without scripts and without anything from elsewhere."""
        loader = PackageLoader("moe_conformance", "data")
        environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        environment.filters["number"] = lambda x: "0" if x == 0 else "∞" if math.isinf(x) else f"{x:.3g}"
        return environment.get_template("certificate.html.j2").render(certificate=self)


def read_certificate(path: Path) -> Certificate:
    """The certificate in a file. Raises CertificateInvalid."""
    try:
        found = Certificate.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CertificateInvalid(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CertificateInvalid(f"{path} is no certificate: {f'{where}: ' if where else ''}{first['msg']}") from error
    if found.seal != found.digest():
        raise CertificateInvalid(f"{path} was changed after it was issued: its seal does not fit its content")
    return found


def objections(record: Record) -> list[str]:
    """Why a Record deserves no certificate by itself."""
    found = []
    if record.seal is None:
        found.append("the Record has no seal: it was written by an older suite")
    if record.verdict != "passed":
        found.append(f"the verdict is {record.verdict}: {'; '.join(record.reasons[:3])}")
    if record.profile != GATE:
        found.append(f"profile {record.profile} and not {GATE}")
    if record.partial:
        found.append(f"a partial run: {', '.join(record.partial)}")
    if record.floor is None:
        found.append("no floor of executed problems")
    else:
        executed = sum(case.outcome not in ("unfinished", "not run") for case in record.cases)
        if executed < record.floor.required:
            found.append(f"{executed} problems were executed, fewer than the floor of {record.floor.required}")
    if record.missing_coverage:
        found.append(f"never met: {', '.join(record.missing_coverage)}")
    if record.commit is None:
        found.append("no commit: it was run outside of a checkout")
    if record.dirty is not False:
        found.append("the tree had uncommitted changes" if record.dirty else "nobody knows whether the tree was clean")
    return found


def issue(
    records: Sequence[Record],
    names: Sequence[str],
    repository: Repository,
    mutants: MutantMatrix | None,
    cases: dict[str, Case],
) -> Certificate:
    """A certificate for Records of one commit. Raises NoCertificate, NotComparable, RepositoryError."""
    wrong = [f"{name}: {text}" for name, record in zip(names, records, strict=True) for text in objections(record)]
    wrong += [
        f"{name}: run at commit {record.commit}, and not at {repository.commit}"
        for name, record in zip(names, records, strict=True)
        if record.commit not in (None, repository.commit)
    ]
    comparison = compare_all(records, names)
    wrong += comparison.differences
    first = records[0]
    wrong += against_repository(first.implementation, first.source_digest, first.spec_digest, repository)
    if mutants is not None and mutants.source_digest != first.source_digest and first.implementation == "tritonmoe":
        wrong.append("the mutation score is of other kernels: its source digest differs")
    if wrong:
        raise NoCertificate("\n".join(wrong))
    base, baseline_digest = _baseline(repository, first.implementation)
    return Certificate(
        suite=first.suite,
        commit=repository.commit,
        implementation=first.implementation,
        source_digest=first.source_digest,
        spec_digest=first.spec_digest,
        runs=[_run(record) for record in records],
        agreements=_agreements(comparison),
        mutation=None if mutants is None else _mutation(mutants),
        compiled_by=None if base is None else base.triton,
        compiled=[] if base is None else compiled(base, cases),
        baseline_digest=baseline_digest,
    ).sealed()


def against_repository(implementation: str, source: str, spec: str, repository: Repository) -> list[str]:
    """Where digests are not those of the commit."""
    wrong = []
    known = repository.source_digest(implementation)
    if known is None:
        wrong.append(f"the sources of {implementation} are not in this repository: nobody can check what was run")
    elif known != source:
        wrong.append(
            f"source digest {source[:16]}, but commit {repository.commit[:10]} has {known[:16]}: other kernels ran"
        )
    if repository.digest(SPEC) != spec:
        wrong.append(f"the contract (SPEC.md) is not the one of commit {repository.commit[:10]}")
    return wrong


def _baseline(repository: Repository, implementation: str) -> tuple[kept.Baseline | None, str | None]:
    if implementation != "tritonmoe":
        return None, None
    return kept.parse(repository.file(BASELINE).decode(), BASELINE), repository.digest(BASELINE)


def compiled(base: kept.Baseline, cases: dict[str, Case]) -> list[Compiled]:
    """The baseline summed up by target. Cells of cases that are not known count among the possible ones."""
    by_target: dict[str, Counter[str]] = {}
    for (key, name), cell in base.cells.items():
        counts = by_target.setdefault(name, Counter())
        case = cases.get(key)
        chosen = case is not None and case.levels.get(name, POSSIBLE) in LEVELS[:-1]
        counts["cells"] += 1
        counts["chosen"] += chosen
        if case is None or findings_of(cell, case):
            counts["chosen_findings" if chosen else "possible_findings"] += 1
    names = ("cells", "chosen", "chosen_findings", "possible_findings")
    return [
        Compiled(target=name, **{each: counts[each] for each in names}) for name, counts in sorted(by_target.items())
    ]


def _run(record: Record) -> Run:
    environment: dict[str, Any] = record.environment
    assert record.floor is not None
    assert record.seal is not None
    fields = ("requirement", "title", "problems", "passed", "refused", "waived", "worst", "worst_problem")
    return Run(
        label=label(record),
        record=record.seal,
        device=str(environment.get("device")),
        architecture=str(environment.get("architecture")),
        driver=str(environment.get("driver") or "-"),
        packages={k: str(v) for k, v in environment["packages"].items()} | _runtimes(environment),
        interpreter_repair=record.interpreter_repair,
        profile=record.profile,
        seed=record.seed,
        started=record.started,
        seconds=record.seconds,
        problem_set=record.problem_set,
        problems=record.problems,
        floor=record.floor.required,
        outcomes=dict(sorted(Counter(case.outcome for case in record.cases).items())),
        verdicts=[Verdict(**{name: getattr(tally, name) for name in fields}) for tally in record.requirements],
        waivers=record.waivers,
    )


def _runtimes(environment: dict[str, Any]) -> dict[str, str]:
    return {name: str(environment[name]) for name in ("cuda", "hip", "python") if environment.get(name)}


def _agreements(comparison: Comparison) -> list[Agreement]:
    return [
        Agreement(
            labels=pair.labels,
            common=pair.common,
            missing=sum(pair.missing),
            disagreements=len(pair.disagreements),
            flagged=[each.name for each in pair.flagged],
        )
        for pair in comparison.pairs
    ]


def _mutation(found: MutantMatrix) -> Mutation:
    backend = str(found.environment.get("backend"))
    return Mutation(
        backend=backend, profile=found.profile, killed=found.killed, judged=len(found.judged), rate=found.rate
    )


def check(certificate: Certificate, repository: Repository, records: Sequence[Record]) -> list[str]:
    """What is wrong with a certificate, by the repository at its commit and by Records that are at hand."""
    wrong = against_repository(
        certificate.implementation, certificate.source_digest, certificate.spec_digest, repository
    )
    if certificate.commit != repository.commit:
        wrong.append(f"the certificate is of commit {certificate.commit}, checked at {repository.commit}")
    if certificate.baseline_digest is not None and repository.digest(BASELINE) != certificate.baseline_digest:
        wrong.append("the compile baseline is not the one of the commit")
    seals = {run.record: run for run in certificate.runs}
    for record in records:
        run = seals.get(record.seal or "")
        if run is None:
            wrong.append(f"a Record of {label(record)} ({record.started}) is not among the certificate's runs")
        elif run != _run(record):
            wrong.append(f"the certificate says something else about {run.label} than its Record")
    return wrong


__all__ = ["Certificate", "NoCertificate", "NotComparable", "check", "issue", "objections", "read_certificate"]
