"""Wrong on purpose: the suite must fail it, in every dtype, and show a problem a person can read."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..generate import Inputs
from ..implementation import Permutation
from .eager import Eager


class DropsLastColumn(Eager):
    """Eager with a K tail cut off: down ignores the last intermediate column unless F is a multiple of 16."""

    declaration = replace(Eager.declaration, name="wrong")

    def down(self, inputs: Inputs, h: Tensor, permutation: Permutation) -> Tensor:
        if h.shape[-1] % 16:
            h = h.clone()
            h[:, -1] = 0
        return super().down(inputs, h, permutation)
