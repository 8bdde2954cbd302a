"""The repository at a commit: digests of what lies there, read from git and not from the working tree."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path, PurePosixPath

# Where the shipped implementations' sources lie: what `implementation.source_digest` reads of them when they run.
SOURCES = {
    "tritonmoe": "kernels/tritonmoe",
    "eager": "conformance/moe_conformance/implementations/eager.py",
    "wrong": "conformance/moe_conformance/implementations/wrong.py",
}
SPEC = "conformance/SPEC.md"
BASELINE = "conformance/moe_conformance/data/compile_baseline.txt"


class RepositoryError(ValueError):
    """There is no repository, or no such commit or file in it; the message says which."""


class Repository:
    """One commit of the checkout that holds `directory`. Raises RepositoryError where there is none."""

    def __init__(self, directory: Path, commit: str) -> None:
        self._root = Path(_git(directory, "rev-parse", "--show-toplevel").decode().strip())
        self.commit = _git(self._root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").decode().strip()

    def file(self, path: str) -> bytes:
        """A file's bytes. Raises RepositoryError."""
        return _git(self._root, "show", f"{self.commit}:{path}")

    def digest(self, path: str) -> str:
        """SHA-256 of a file. Raises RepositoryError."""
        return hashlib.sha256(self.file(path)).hexdigest()

    def source_digest(self, implementation: str) -> str | None:
        """What `implementation.source_digest` gives for a shipped implementation; None for one from elsewhere."""
        if implementation not in SOURCES:
            return None
        where = SOURCES[implementation]
        listed = _git(self._root, "ls-tree", "-r", "--name-only", "-z", self.commit, "--", where).decode()
        paths = sorted(PurePosixPath(name) for name in listed.split("\0") if name.endswith((".py", ".toml")))
        if not paths:
            raise RepositoryError(f"commit {self.commit} has no {where}")
        digest = hashlib.sha256()
        for path in paths:
            digest.update(path.name.encode() + b"\0" + self.file(str(path)) + b"\0")
        return digest.hexdigest()


def _git(directory: Path, *arguments: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        what = f"git {' '.join(arguments)} in {directory}"
        raise RepositoryError(f"{what}: {said.decode(errors='replace').strip() or 'no such commit'}") from error
