"""Kernels that do harm: a store to nowhere, and a loop without an end."""

import triton
import triton.language as tl


@triton.jit
def store_outside_kernel(out_ptr, distance):  # type: ignore[no-untyped-def]
    """out_ptr[distance] = 1, `distance` elements away from everything."""
    tl.store(out_ptr + distance, 1)


@triton.jit
def wait_forever_kernel(flag_ptr, out_ptr):  # type: ignore[no-untyped-def]
    """Waits until flag_ptr[0] is set, which nobody does."""
    seen = tl.load(flag_ptr, volatile=True)
    while seen == 0:
        seen = tl.load(flag_ptr, volatile=True)
    tl.store(out_ptr, seen)
