"""For tests/test_executed.py: implementations whose down stage touches memory that is not its own."""

import triton
import triton.language as tl

from moe_conformance.implementation import Declaration
from moe_conformance.implementations.triton_moe import TritonMoE


@triton.jit
def _touch(pointer, count, BLOCK: tl.constexpr, LOAD: tl.constexpr):
    place = tl.arange(0, BLOCK)
    if LOAD:
        value = tl.load(pointer + place, mask=place <= count)
        tl.store(pointer + place, value, mask=place < count)
    else:
        tl.store(pointer + place, tl.full((BLOCK,), 0, pointer.dtype.element_ty), mask=place == count)


class Faulty(TritonMoE):
    """Reads or writes one element behind a buffer of its own."""

    declaration = Declaration("faulty", stages=frozenset({"permute", "down"}), uses_triton=True)
    load = False

    def __init__(self):
        super().__init__()
        self.declaration = Faulty.declaration

    def down(self, inputs, h, permutation):
        y = super().down(inputs, h, permutation)
        count = min(y.numel(), 1000)
        _touch[(1,)](y.reshape(-1)[:count], count, BLOCK=1024, LOAD=self.load)
        return y


class Reads(Faulty):
    load = True
