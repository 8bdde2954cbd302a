"""Of several that want one kernel, one compiles it (moe_conformance.compile_once)."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from triton import knobs
from triton.runtime.cache import get_cache_manager

from moe_conformance import compile_once
from moe_conformance.compile_once import CompileOnce

NAME = "kernel.json"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_MANAGER", "moe_conformance.compile_once:CompileOnce")
    return tmp_path


def compile_into(manager: CompileOnce) -> None:
    """What triton.compile does once it has found nothing."""
    manager.put_group(NAME, {NAME: manager.put("{}", NAME)})


def in_a_thread(manager: CompileOnce) -> tuple[threading.Thread, list[object]]:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(manager.get_group(NAME)))
    thread.start()
    return thread, found


def test_triton_takes_it_by_its_name():
    assert type(get_cache_manager("0f")) is CompileOnce
    assert knobs.cache.manager_class is CompileOnce


def test_the_second_waits_for_the_first_and_finds_the_kernel():
    first, second = CompileOnce("one"), CompileOnce("one")
    assert first.get_group(NAME) is None
    thread, found = in_a_thread(second)
    thread.join(0.2)
    assert thread.is_alive()
    compile_into(first)
    thread.join()
    assert found == [first.get_group(NAME)]
    assert list(found[0]) == [NAME]
    assert CompileOnce("one").get_group(NAME) == found[0], "nobody holds the lock any more"


def test_another_kernel_waits_for_nobody():
    first, other = CompileOnce("one"), CompileOnce("two")
    assert first.get_group(NAME) is None
    assert other.get_group(NAME) is None


def test_a_compilation_that_failed_hands_its_turn_on():
    first, second = CompileOnce("one"), CompileOnce("one")
    assert first.get_group(NAME) is None
    thread, found = in_a_thread(second)
    del first  # as triton.compile does by raising
    thread.join()
    assert found == [None]
    compile_into(second)


def test_a_process_that_died_hands_its_turn_on():
    script = f"""
import os
from moe_conformance.compile_once import CompileOnce
kept = CompileOnce("one")
assert kept.get_group({NAME!r}) is None
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert CompileOnce("one").get_group(NAME) is None


def test_who_has_waited_long_compiles_as_well(monkeypatch):
    monkeypatch.setattr(compile_once, "WAIT_SECONDS", 0.1)
    first, second = CompileOnce("one"), CompileOnce("one")
    assert first.get_group(NAME) is None
    assert second.get_group(NAME) is None
    compile_into(second)
    compile_into(first)


def test_a_file_system_without_locks_costs_the_waiting_alone(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(compile_once.FileLock, "acquire", refuse)
    assert CompileOnce("one").get_group(NAME) is None
