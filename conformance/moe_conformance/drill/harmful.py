"""Implementations that take their process with them on problems of three and five experts, and are right on all others.

Not listed among the shipped ones: they are for `moe-conformance drill` and for tests, loaded by name.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from dataclasses import replace

import torch
from torch import Tensor

from ..implementation import Permutation
from ..implementations.eager import Eager

HARMED = (3, 5)


class Harmless(Eager):
    """The control: what a run is without harm."""

    declaration = replace(Eager.declaration, name="harmless", dtypes=("fp32",), stages=frozenset({"permute"}))

    def permute(self, ids: Tensor, num_experts: int) -> Permutation:
        if num_experts in HARMED:
            self.harm(ids)
        return super().permute(ids, num_experts)

    def harm(self, ids: Tensor) -> None:
        """Nothing."""


class Segfaults(Harmless):
    """Reads address 0 on the host."""

    def harm(self, ids: Tensor) -> None:
        ctypes.string_at(0)


class Exits(Harmless):
    """Leaves, with an exit code that says all is well."""

    def harm(self, ids: Tensor) -> None:
        os._exit(0)


class Killed(Harmless):
    """Is killed, as the system does where memory runs out."""

    def harm(self, ids: Tensor) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class SpinsWithTheLock(Harmless):
    """A call into C that never ends and never lets go of the interpreter's lock."""

    def harm(self, ids: Tensor) -> None:
        re.match(r"(a+)+$", "a" * 64 + "b")


class Sleeps(Harmless):
    """Waits for something that never comes."""

    def harm(self, ids: Tensor) -> None:
        time.sleep(1e6)


class IgnoresSignals(Sleeps):
    """And does not even let itself be asked where it is."""

    def harm(self, ids: Tensor) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        super().harm(ids)


class Hoards(Harmless):
    """Asks for more memory than there is, on the device of its inputs."""

    def harm(self, ids: Tensor) -> None:
        torch.empty(2**52, dtype=torch.uint8, device=ids.device)


class KernelStoresFarOutside(Harmless):
    """A kernel stores to an address that nobody has: the device takes the process's context with it."""

    def harm(self, ids: Tensor) -> None:
        from .harmful_kernel import store_outside_kernel

        store_outside_kernel[(1,)](ids, 2**45)
        torch.cuda.synchronize()


class KernelNeverEnds(Harmless):
    """A kernel waits for a flag that nobody sets."""

    def harm(self, ids: Tensor) -> None:
        from .harmful_kernel import wait_forever_kernel

        flag = torch.zeros(1, dtype=torch.int32, device=ids.device)
        wait_forever_kernel[(1,)](flag, flag)
        torch.cuda.synchronize()
