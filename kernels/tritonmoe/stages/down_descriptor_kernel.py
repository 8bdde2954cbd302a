"""down on sorted rows: blocks of rows and weights come through tensor descriptors, for copies in bulk."""

import triton
import triton.language as tl

from .matmul_kernel import element_count, load_bias, tile_coordinates


@triton.jit
def store_columns(total, down_bias, y, expert, position, end, n, hidden, bias_expert, bias_n):
    n_inside = n < hidden
    if down_bias is not None:
        total += load_bias(down_bias, expert, n, n_inside, bias_expert, bias_n)
    y_pointers = y + tl.cast(position, tl.int64)[:, None] * hidden + n[None, :]
    tl.store(y_pointers, total.to(y.dtype.element_ty), mask=(position < end)[:, None] & n_inside[None, :])


@triton.jit
def multiply(
    h,
    w_down,
    down_bias,
    y,
    expert,
    first,
    end,
    column,
    ffn,
    hidden,
    bias_expert,
    bias_n,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Rows first to first + BLOCK_M, those from `end` on for nothing: they are another expert's, and are not stored."""
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, ffn, BLOCK_K):
        block = h.load([first, start])
        w = w_down.load([expert, column * BLOCK_N, start]).reshape(BLOCK_N, BLOCK_K)
        total = tl.dot(block, w.T, total, input_precision=INPUT_PRECISION, out_dtype=tl.float32)

    position = first + tl.arange(0, BLOCK_M)
    if BLOCK_N >= 256:
        # In halves: a store of the whole block would need as much shared memory as a stage of the pipeline.
        left, right = tl.split(tl.permute(tl.reshape(total, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
        n = column * BLOCK_N + tl.arange(0, BLOCK_N // 2)
        store_columns(left, down_bias, y, expert, position, end, n, hidden, bias_expert, bias_n)
        store_columns(right, down_bias, y, expert, position, end, n + BLOCK_N // 2, hidden, bias_expert, bias_n)
    else:
        n = column * BLOCK_N + tl.arange(0, BLOCK_N)
        store_columns(total, down_bias, y, expert, position, end, n, hidden, bias_expert, bias_n)


@triton.jit
def multiply_tile(
    program,
    num_tiles,
    h,
    offsets,
    tile_expert,
    tile_start,
    w_down,
    down_bias,
    y,
    ffn,
    hidden,
    bias_expert,
    bias_n,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    tile, column = tile_coordinates(program, num_tiles, tl.cdiv(hidden, BLOCK_N), GROUP)
    expert = tl.load(tile_expert + tile)
    first = tl.load(tile_start + tile)
    end = tl.load(offsets + expert + 1)
    multiply(
        h, w_down, down_bias, y, expert, first, end, column, ffn, hidden, bias_expert, bias_n, INPUT_PRECISION,
        BLOCK_M, BLOCK_N, BLOCK_K,
    )  # fmt: skip


@triton.jit(do_not_specialize=["ffn", "hidden", "bias_expert", "bias_n"])
def down_descriptor_kernel(
    h,
    offsets,
    tile_expert,
    tile_start,
    tiles_used,
    w_down,
    down_bias,
    y,
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
    PERSISTENT: tl.constexpr,
):
    ffn = element_count(ffn, VEC)
    hidden = element_count(hidden, VEC)
    used = tl.load(tiles_used)
    work = used * tl.cdiv(hidden, BLOCK_N)
    if PERSISTENT:
        # flatten: one loop over all steps of all tiles, so that loads of the next tile start before this one is stored.
        for program in tl.range(tl.program_id(0), work, tl.num_programs(0), flatten=True):
            multiply_tile(
                program, used, h, offsets, tile_expert, tile_start, w_down, down_bias, y, ffn, hidden, bias_expert,
                bias_n, INPUT_PRECISION, BLOCK_M, BLOCK_N, BLOCK_K, GROUP,
            )  # fmt: skip
    elif tl.program_id(0) < work:
        multiply_tile(
            tl.program_id(0), used, h, offsets, tile_expert, tile_start, w_down, down_bias, y, ffn, hidden,
            bias_expert, bias_n, INPUT_PRECISION, BLOCK_M, BLOCK_N, BLOCK_K, GROUP,
        )  # fmt: skip
