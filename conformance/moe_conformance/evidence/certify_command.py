"""`moe-conformance certify`: a certificate for Records of the gate, and the check of one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..mutants.matrix import Matrix
from ..portability import baseline as kept
from ..portability import cases as cases_file
from ..whole_file import write_whole
from .certificate import CertificateInvalid, NoCertificate, check, issue, read_certificate
from .comparison import NotComparable
from .reading import RecordInvalid, read_record
from .repository import Repository, RepositoryError

EXIT_FAILED = 1


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="the certificate, as JSON; the page lies "
              "beside it, with the ending .html [default: certificate.json]")  # fmt: skip
@click.option(
    "--mutants", "mutants_file", type=click.Path(path_type=Path), help="result of `mutants --record`, for its score"
)
@click.option("--check", "checked", type=click.Path(path_type=Path), help="check this certificate, and issue none; "
              "FILES are Records that it names")  # fmt: skip
@click.option(
    "--repository", "directory", default=Path(), type=click.Path(path_type=Path), help="a checkout [default: here]"
)
def certify(
    files: tuple[Path, ...], out: Path | None, mutants_file: Path | None, checked: Path | None, directory: Path
) -> None:
    """Issue a certificate for Records of one commit, or check one against the repository at that commit.

    A dirty tree, a partial run, another profile than gate, a floor that was not reached, kernels that are not those of
    the commit, platforms that disagree: no certificate.

    Exit codes: 0 issued, or right; 1 not; 2 a file is unreadable, tampered with or of another schema, or there is no
    repository.
    """
    try:
        if checked is not None:
            if out is not None or mutants_file is not None:
                raise click.UsageError("--check issues nothing: leave --out and --mutants out")
            _check(checked, files, directory)
        else:
            _issue(files, out or Path("certificate.json"), mutants_file, directory)
    except (RecordInvalid, CertificateInvalid, RepositoryError, NotComparable) as error:
        raise click.UsageError(str(error)) from error
    except (cases_file.CasesInvalid, kept.BaselineInvalid) as error:
        raise click.UsageError(str(error)) from error


def _mutants(path: Path | None) -> Matrix | None:
    if path is None:
        return None
    try:
        return Matrix.read(path)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path} is no result of `mutants --record`: {error}") from error


def _issue(files: tuple[Path, ...], out: Path, mutants_file: Path | None, directory: Path) -> None:
    if not files:
        raise click.UsageError("certify takes a Record or more")
    page = out.with_suffix(".html")
    if {out.resolve(), page.resolve()} & {
        path.resolve() for path in (*files, *([mutants_file] if mutants_file else []))
    }:
        raise click.UsageError(f"{out} would be written over a file that is read")
    records = [read_record(path) for path in files]
    repository = Repository(directory, records[0].commit or "HEAD")
    try:
        made = issue(
            records, [str(path) for path in files], repository, _mutants(mutants_file), cases_file.read().cases
        )
    except NoCertificate as error:
        click.echo("no certificate:")
        for line in str(error).splitlines():
            click.echo(f"  - {line}")
        sys.exit(EXIT_FAILED)
    write_whole(out, made.model_dump_json(indent=1))
    write_whole(page, made.html())
    for run in made.runs:
        worst = run.worst
        click.echo(f"{run.label}: {run.problems} problems, {len(run.verdicts)} requirements, worst error/bound "
                   f"{worst.worst:.3g} ({worst.requirement})")  # fmt: skip
    click.echo(f"certificate {made.seal and made.seal[:16]} of commit {made.commit[:10]}: {out}, {page}")


def _check(path: Path, files: tuple[Path, ...], directory: Path) -> None:
    certificate = read_certificate(path)
    records = [read_record(each) for each in files]
    wrong = check(certificate, Repository(directory, certificate.commit), records)
    for line in wrong:
        click.echo(f"  - {line}")
    runs = ", ".join(run.label for run in certificate.runs)
    if wrong:
        click.echo(f"{path} does not hold: {len(wrong)} contradictions")
        sys.exit(EXIT_FAILED)
    click.echo(
        f"{path} holds: {certificate.implementation} at commit {certificate.commit[:10]} on {runs}; "
        f"{len(records)} of {len(certificate.runs)} Records compared"
    )
