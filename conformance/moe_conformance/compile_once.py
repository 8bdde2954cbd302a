"""Triton's file cache, of which one process at a time compiles a kernel, and the others that want it wait for that one.

The workers of a run come to the same kernels at nearly the same time, above all when they begin: by itself each of them
would compile each. A run names this class in TRITON_CACHE_MANAGER, unless its caller has named another.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout
from triton.runtime.cache import FileCacheManager

# Longer than any kernel takes to compile, and less than a problem may take: who has waited that long compiles as well.
WAIT_SECONDS = 120.0


class CompileOnce(FileCacheManager):
    """One kernel's folder of the cache. Whoever finds it empty has the folder's lock until the kernel is in it, or the
    compilation has failed, or the process is gone."""

    _turn: FileLock | None = None

    def get_group(self, filename: str) -> dict[str, str] | None:
        found: dict[str, str] | None = super().get_group(filename)
        if found is None and self._turn is None and self._take_turn():
            found = super().get_group(filename)
            if found is not None:
                self._end_turn()
        return found

    def put_group(self, filename: str, group: dict[str, str]) -> str:
        try:
            return str(super().put_group(filename, group))
        finally:
            self._end_turn()

    def __del__(self) -> None:
        self._end_turn()

    def _take_turn(self) -> bool:
        turn = FileLock(Path(self.cache_dir) / "compiling", thread_local=False)
        try:
            turn.acquire(timeout=WAIT_SECONDS)
        except (Timeout, OSError):  # OSError: on this file system nobody can wait for anybody
            return False
        self._turn = turn
        return True

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.release()
            self._turn = None
