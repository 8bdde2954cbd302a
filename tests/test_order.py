"""The order in which parts are handed to workers: it decides how long a run waits for its last one."""

from __future__ import annotations

import heapq

import pytest

from moe_conformance.backends import Backend
from moe_conformance.explore import Part
from moe_conformance.plan import FULL, RunOptions, chosen_properties, parts
from moe_conformance.plugin import in_order, urgency
from moe_conformance.profiles import profile


def test_the_longest_come_first_and_nobody_starts_with_two_of_them():
    assert in_order([1, 9, 3, 8, 2, 7], lambda item: item, 2) == [9, 3, 8, 7, 2, 1]


@pytest.mark.parametrize("count", range(12))
@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_every_item_is_handed_out_once(count, workers):
    items = list(range(count))
    assert sorted(in_order(items, lambda item: item % 5, workers)) == items


def ends(order: list[Part], workers: int) -> tuple[int, float]:
    """(when the last worker ends, what each has to do on average), where a part takes what it is thought to take: two
    parts for each worker to begin with, then one for each that it has done (xdist's load with chunks of one)."""
    queue = list(order)
    hands = [[queue.pop(0) for _ in range(min(2, len(queue)))] for _ in range(workers)]
    clock = [(hand[0].effort(FULL), worker) for worker, hand in enumerate(hands) if hand]
    heapq.heapify(clock)
    end = 0
    while clock:
        end, worker = heapq.heappop(clock)
        hands[worker].pop(0)
        if queue:
            hands[worker].append(queue.pop(0))
        if hands[worker]:
            heapq.heappush(clock, (end + hands[worker][0].effort(FULL), worker))
    return end, sum(part.effort(FULL) for part in order) / workers


@pytest.mark.parametrize(("backend", "workers"), [("cpu", 2), ("cuda", 15), ("cuda", 30)])
def test_workers_of_a_gate_end_together(backend, workers):
    options, on = RunOptions("mine", backend, "gate"), Backend(backend, backend)
    chosen = profile("gate", on)
    made = [p for prop in chosen_properties(options, on, FULL) for p in parts(prop, options, chosen, FULL)]
    end, fair = ends(in_order(made, lambda part: urgency(part, FULL), workers), workers)
    assert end < 1.1 * fair
