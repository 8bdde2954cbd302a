"""The order in which programs work where some experts are crowded, have more than one row tile, and others are not.

Programs of crowded experts have their expert's weights from the cache and wait for their products; the others wait for
weights from memory. Launched in turns, both kinds are at work at any time.
"""

import triton
import triton.language as tl


@triton.jit
def in_turns(program, total, share, turn):
    """The number of a program of `total` when all those of crowded experts are counted first.

    share: of crowded ones, in parts of 2**31, rounded up (tritonmoe.stages.schedule.Schedule). As launched, `turn`
    programs of one kind follow each other, and the two kinds take turns in the ratio of their numbers. With longer
    turns, more of the programs that run at a time have rows and weights in common.
    """
    # Every number comes once, whatever share and turn are. Rounded up by less than one part, and with fewer than 2**31
    # programs, it gives exactly the crowded turns; what is left behind the last whole turn keeps its number.
    share = share.to(tl.uint32, bitcast=True).to(tl.int64)
    turns = total // turn
    mine = program // turn
    crowded = ((share * turns) >> 31).to(tl.int32)
    before = ((share * mine) >> 31).to(tl.int32)  # crowded ones among those launched earlier
    behind = ((share * (mine + 1)) >> 31).to(tl.int32)
    place = tl.where(behind > before, before, crowded + mine - before)
    return tl.where(mine < turns, place * turn + program % turn, program)


@triton.jit
def expert_tile_coordinates(program, slot, start, rank, end, columns, BLOCK_M: tl.constexpr, GROUP: tl.constexpr):
    """(first row of the tile, column block) of a program, of an expert whose rows end at `end`.

    slot, start, rank: the row tile that would be the program's if each walked over the columns alone, its first row,
    and its number within the expert. Up to GROUP tiles walk together, as in tile_coordinates, but never those of two
    experts: what neighbours share is one expert's weights, and to read those of several experts side by side is slower
    than one after another.
    """
    begin = start - rank * BLOCK_M
    inside = program - (slot - rank) * columns  # among the programs of this expert
    span = GROUP * columns
    leader = (inside // span) * GROUP
    height = tl.minimum((end - begin - 1) // BLOCK_M + 1 - leader, GROUP)
    inside %= span
    return begin + (leader + inside % height) * BLOCK_M, inside // height


@triton.jit
def tile_in_turns(
    program, total, share, turn, crowded_first, num_tiles, columns, BLOCK_M: tl.constexpr, GROUP: tl.constexpr
):
    """(expert, first row, end of the expert's rows, column block) of a program of `total`."""
    program = in_turns(program, total, share, turn)
    slot = program // columns
    expert = tl.load(crowded_first + slot)
    start = tl.load(crowded_first + num_tiles + slot)
    rank = tl.load(crowded_first + 2 * num_tiles + slot)
    end = tl.load(crowded_first + 3 * num_tiles + slot)
    first, column = expert_tile_coordinates(program, slot, start, rank, end, columns, BLOCK_M, GROUP)
    return expert, first, end, column
