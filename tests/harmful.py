"""Further implementations for tests, loaded by name; those that do harm are in moe_conformance/drill/harmful.py."""

from __future__ import annotations

import os
import time

from torch import Tensor

from moe_conformance.drill.harmful import Exits, Harmless
from moe_conformance.implementation import Permutation


class Slow(Harmless):
    """Harmless, and slow enough to be killed in the middle."""

    def permute(self, ids: Tensor, num_experts: int) -> Permutation:
        time.sleep(0.05)
        return super().permute(ids, num_experts)


class LeavesForThree(Exits):
    """Leaves for three experts alone: in a small run that is one problem."""

    def harm(self, ids: Tensor) -> None:
        if int(ids.max()) < 3:
            super().harm(ids)


class CannotBeLoaded(Harmless):
    def __init__(self) -> None:
        if os.environ.get("PYTEST_CURRENT_TEST") is None:
            os._exit(7)
