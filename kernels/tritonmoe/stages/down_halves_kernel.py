"""down on sorted rows of deep experts: the last rows of each in a tile of half the height, programs in turns.

As in gate_up: one program a tile. A persistent one starts the next tile's loads before it stores this one, but its loop
cannot have two heights; where F is large, a tile has enough steps for that to matter less than the rows left out.
"""

import triton
import triton.language as tl

from .down_descriptor_kernel import multiply
from .matmul_kernel import element_count
from .turns_kernel import tile_in_turns


@triton.jit(do_not_specialize=["num_tiles", "turn", "ffn", "hidden", "bias_expert", "bias_n"])
def down_halves_kernel(
    h,
    half_h,
    tiles_used,
    crowded_first,
    w_down,
    down_bias,
    y,
    num_tiles,
    turn,
    ffn,
    hidden,
    bias_expert,
    bias_n,
    VEC: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    ffn = element_count(ffn, VEC)
    hidden = element_count(hidden, VEC)
    columns = tl.cdiv(hidden, BLOCK_N)
    total = tl.load(tiles_used) * columns
    share = tl.load(tiles_used + 1)
    if tl.program_id(0) >= total:
        return
    expert, first, end, column = tile_in_turns(
        tl.program_id(0), total, share, turn, crowded_first, num_tiles, columns, BLOCK_M, GROUP
    )
    if end - first <= BLOCK_M // 2:
        multiply(
            half_h, w_down, down_bias, y, expert, first, end, column, ffn, hidden, bias_expert, bias_n,
            INPUT_PRECISION, BLOCK_M // 2, BLOCK_N, BLOCK_K,
        )  # fmt: skip
    else:
        multiply(
            h, w_down, down_bias, y, expert, first, end, column, ffn, hidden, bias_expert, bias_n, INPUT_PRECISION,
            BLOCK_M, BLOCK_N, BLOCK_K,
        )  # fmt: skip
