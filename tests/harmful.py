"""Implementations that take their process with them on problems of three and five experts; loaded by name."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from dataclasses import replace

import torch
from torch import Tensor

from moe_conformance.implementation import Permutation
from moe_conformance.implementations.eager import Eager

HARMED = (3, 5)


class Harmless(Eager):
    declaration = replace(Eager.declaration, name="harmless", dtypes=("fp32",), stages=frozenset({"permute"}))

    def permute(self, ids: Tensor, num_experts: int) -> Permutation:
        if num_experts in HARMED:
            self.harm()
        return super().permute(ids, num_experts)

    def harm(self) -> None:
        """Nothing."""


class Segfaults(Harmless):
    def harm(self) -> None:
        ctypes.string_at(0)


class Exits(Harmless):
    """With a code that says all is well."""

    def harm(self) -> None:
        os._exit(0)


class Killed(Harmless):
    def harm(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class SpinsWithTheLock(Harmless):
    """A call into C that never ends and never lets go of the interpreter's lock."""

    def harm(self) -> None:
        re.match(r"(a+)+$", "a" * 64 + "b")


class Sleeps(Harmless):
    def harm(self) -> None:
        time.sleep(1e6)


class IgnoresSignals(Sleeps):
    """Does not even let itself be asked where it is."""

    def harm(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        super().harm()


class Hoards(Harmless):
    def harm(self) -> None:
        torch.empty(2**52)


class Slow(Harmless):
    """Harmless, and slow enough to be killed in the middle."""

    def permute(self, ids: Tensor, num_experts: int) -> Permutation:
        time.sleep(0.05)
        return super().permute(ids, num_experts)


class DiesTwice(Harmless):
    """Takes the worker itself along, where it is judged in it."""

    def harm(self) -> None:
        os._exit(3)


class CannotBeLoaded(Harmless):
    def __init__(self) -> None:
        if os.environ.get("PYTEST_CURRENT_TEST") is None:
            os._exit(7)
