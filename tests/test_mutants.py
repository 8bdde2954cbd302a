"""The catalogue of mutants, and the machinery that hunts them."""

from __future__ import annotations

import ast
import json
import tomllib
from collections import Counter

import pytest
import torch
from click.testing import CliRunner

import tritonmoe.tiles
import wavefront
from moe_conformance.backends import Backend
from moe_conformance.cli import main
from moe_conformance.implementations.eager import Eager
from moe_conformance.implementations.wrong import DropsLastColumn
from moe_conformance.mutants import matrix, pool, wrapped
from moe_conformance.mutants.build import EditError, build, edited, sources
from moe_conformance.mutants.catalogue import CLASSES, STAGES, Edit, Mutant, catalogue
from moe_conformance.mutants.hunt import AFTER, Hunt, Queue, attempt, hunt, relevant, ring
from moe_conformance.mutants.pool import Outcome, Task
from moe_conformance.problem import Problem
from moe_conformance.registry import all_properties

CPU = Backend("cpu", "cpu")
SMALL = {"tokens": 3, "hidden": 5, "ffn": 7, "experts": 2, "top_k": 1}


# -- catalogue -------------------------------------------------------------------------------------------------------


def test_the_catalogue_covers_every_stage_and_class():
    real = [m for m in catalogue() if m.equivalent is None]
    assert len(real) >= 90
    assert sum(m.where == "cpu" for m in real) >= 80
    assert {m.stage for m in real} == set(STAGES)
    assert {m.bug_class for m in real} == set(CLASSES)
    assert sum(m.equivalent is not None for m in catalogue()) >= 3
    assert all(len(m.equivalent.split()) >= 15 for m in catalogue() if m.equivalent is not None)


def test_no_two_mutants_are_the_same():
    changes = Counter((str(m.edits), m.wrap) for m in catalogue())
    assert [change for change, count in changes.items() if count > 1] == []


@pytest.mark.parametrize("stage", ["gate_up", "down"])
def test_shared_memory_is_what_the_tile_table_asks_for(stage):
    """A mutant that says it needs so much is about tiles of which no device row needs less; and none is forgotten."""
    rows = [row for row in tritonmoe.tiles.table() if row.stage == stage and row.shared_memory is not None]
    least = min(row.shared_memory for row in rows if row.tile.descriptors)
    # gather_kernel lays rows out for gate_up's descriptors, and for nothing else.
    files = {f"stages/{stage}_descriptor_kernel.py"} | ({"stages/gather_kernel.py"} if stage == "gate_up" else set())
    about = [m for m in catalogue() if any(edit.file in files for edit in m.edits)]
    assert about
    assert {m.shared_memory for m in about} == {least}
    assert {m.shared_memory for m in catalogue()} <= {0, least}


def drawn(backend: Backend, offered: int | None) -> pool.Drawn:
    return pool.Drawn(backend, 1, {}, "", [], offered)


@pytest.mark.parametrize(
    ("backend", "offered", "fields", "reached"),
    [
        (Backend("cpu", "cpu"), None, {}, True),
        (Backend("cpu", "cpu"), None, {"shared_memory": 204800}, True),
        (Backend("exec:gfx942", "cpu"), 65536, {"shared_memory": 204800}, False),
        (Backend("cuda", "cuda"), 232448, {"shared_memory": 204800}, True),
        (Backend("cuda", "cuda"), 101376, {"shared_memory": 204800}, False),
        (Backend("cpu", "cpu"), None, {"where": "gpu", "why": "races"}, False),
        (Backend("cuda", "cuda"), 101376, {"where": "gpu", "why": "races"}, True),
    ],
)
def test_mutants_that_a_device_never_runs_are_told_apart(backend, offered, fields, reached):
    assert drawn(backend, offered).reaches(entry(**fields)) is reached


@pytest.mark.parametrize("mutant", [m for m in catalogue() if m.edits], ids=lambda m: m.id)
def test_every_edit_fits_and_leaves_another_program(mutant):
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        shipped = (sources() / edit.file).read_text(encoding="utf-8")
        assert shipped.count(edit.find) == 1
        texts[edit.file] = edited(texts.get(edit.file, shipped), edit)
    for name, text in texts.items():
        shipped = (sources() / name).read_text(encoding="utf-8")
        if name.endswith(".py"):
            assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(shipped))
        else:
            assert tomllib.loads(text) != tomllib.loads(shipped)


def test_every_wrapper_exists_and_is_used():
    shipped = {n for n, v in vars(wrapped).items() if isinstance(v, type) and issubclass(v, wrapped.Faithful)}
    assert {m.wrap for m in catalogue() if m.wrap} == shipped


def test_both_products_have_tiles_of_the_same_height():
    """What the equivalent mutant `schedule-of-gate-up-for-down` rests on."""

    def choices(stage):
        edges = sorted({row.rows_up_to for row in tritonmoe.tiles.table()} | {1})
        for itemsize in (2, 4):
            for memory in (None, 65536, 98304, 232448):
                for rows in (edge + step for edge in edges for step in (0, 1) if edge + step < 2**31):
                    yield tritonmoe.tiles.choose(stage, itemsize, rows, memory)

    for first, second in zip(choices("gate_up"), choices("down"), strict=True):
        assert first.block_m == second.block_m
        assert first.descriptors >= second.descriptors  # then the schedule has what down's descriptors need


def entry(**fields) -> Mutant:
    given = {"id": "a-mutant", "class": "gemm", "source": "here", "stage": "down", "wrap": "Faithful"} | fields
    return Mutant.model_validate({name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize(
    "fields",
    [
        {"class": "unknown"},
        {"stage": "unknown"},
        {"where": "gpu"},
        {"why": "only with where"},
        {"wrap": None},
        {"edits": [{"file": "a", "find": "b", "replace": "c"}]},
        {"extra": 1},
        {"id": "With Spaces"},
    ],
)
def test_wrong_entries_are_refused(fields):
    entry()
    with pytest.raises(ValueError, match="validation error"):
        entry(**fields)


# -- build -----------------------------------------------------------------------------------------------------------


def test_build_edits_a_copy(tmp_path):
    edit = Edit(file="launch.py", find="VECTOR_BYTES = 16", replace="VECTOR_BYTES = 8")
    build([edit], tmp_path)
    assert "VECTOR_BYTES = 8" in (tmp_path / "tritonmoe" / "launch.py").read_text()
    assert "VECTOR_BYTES = 16" in (sources() / "launch.py").read_text()


@pytest.mark.parametrize(("find", "replace"), [("c", "d"), ("a", "d"), ("b", "b")])
def test_an_edit_that_does_not_fit_is_an_error(find, replace):
    with pytest.raises(EditError):
        edited("aab", Edit(file="x", find=find, replace=replace))


# -- hunt ------------------------------------------------------------------------------------------------------------


def queue(name: str, count: int = 2, **fields) -> Queue:
    return Queue(f"{name}[x]", name, tuple(Problem(**{**SMALL, **fields, "seed": i}) for i in range(count)))


def names(pairs) -> list[str]:
    return [found.name for found, _ in pairs]


def test_a_stage_is_hunted_with_its_own_properties_first():
    every = [queue(name) for name in all_properties()]
    found = [q.name for q in relevant(every, "combine")]
    assert found[:2] == ["combine", "overflow_becomes_infinity"]
    assert "forward" in found[2:]
    assert not {"route", "down", "gate_up"} & set(found)
    assert {"down", "gate_up"} <= {q.name for q in relevant(every, "schedule")}
    assert {q.prop.stage for q in relevant(every, "forward")} == {"forward"}


def test_the_ring_takes_turns_and_leaves_gigabytes_for_the_end():
    queues = [queue("model_layers", 1), queue("combine", 5), queue("forward", 2)]
    order = names(ring(queues, "combine"))
    assert order == ["combine"] * 3 + ["forward"] + ["combine"] * 2 + ["forward", "model_layers"]


def run_hunt(implementation, queues, **keywords) -> tuple[Hunt, list[str]]:
    told: list[str] = []
    keywords = {"seconds": 60.0} | keywords
    found = hunt(queues, "down", implementation, "it", CPU, tell=lambda kind, value: told.append(kind), **keywords)
    return found, told


def test_a_hunt_ends_soon_after_the_kill_and_keeps_what_saw_it():
    found, told = run_hunt(DropsLastColumn(), [queue("down", 40), queue("combine", 40)])
    assert found.kill["property"] == "down"
    assert found.kill["problems"] == 1
    assert found.seen >= {("DOWN-1", "sound")}
    assert found.problems == 1 + 2 * AFTER
    assert told.count("killed") == 1
    assert told[:2] == ["trying", "killed"]
    assert found.complete


def test_a_right_implementation_survives_the_whole_budget():
    found, told = run_hunt(Eager(), [queue("down", 4), queue("combine", 3)])
    assert found.kill is None
    assert found.seen == set()
    assert found.complete
    assert told == ["trying"] * 7


def test_a_hunt_out_of_time_is_not_complete():
    found, _ = run_hunt(Eager(), [queue("down", 4)], seconds=-1.0)
    assert found.kill is None
    assert not found.complete


class RunsOutOfMemory(Eager):
    def down(self, inputs, h, permutation):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_device_that_is_full_is_no_kill():
    with pytest.raises(torch.OutOfMemoryError):
        run_hunt(RunsOutOfMemory(), [queue("down")])


class MeetsAnUnknownInstruction(Eager):
    def down(self, inputs, h, permutation):
        raise wavefront.UnsupportedInstruction("v_new_f32 is not modelled")


def test_code_that_the_executor_does_not_know_is_no_kill():
    """The child dies of it, and the mutant is booked as invalid: nothing was judged."""
    with pytest.raises(wavefront.UnsupportedInstruction):
        run_hunt(MeetsAnUnknownInstruction(), [queue("down")])


class Raises(Eager):
    def down(self, inputs, h, permutation):
        raise RuntimeError("no such kernel")


class DeviceDies(Eager):
    def down(self, inputs, h, permutation):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_attempts_tell_raising_from_failing_and_from_a_dead_device():
    problem = Problem(**SMALL)
    prop = all_properties()["down"]
    assert attempt(prop, problem, Eager(), "it", CPU).ended == ""
    raised = attempt(prop, problem, Raises(), "it", CPU)
    assert raised.ended == "raised"
    assert raised.seen == {("DOWN-1", "raised")}
    assert attempt(prop, problem, DeviceDies(), "it", CPU).ended == "crash"
    failed = attempt(prop, problem, DropsLastColumn(), "it", CPU)
    assert (failed.ended, failed.seen) == ("", {("DOWN-1", "sound"), ("DOWN-1", "sharp")})


def test_a_hunt_stops_where_the_device_died():
    found, _ = run_hunt(DeviceDies(), [queue("down", 10)])
    assert found.kill["ended"] == "crash"
    assert found.problems == 1


def test_the_wrapper_without_a_defect_changes_nothing(judge_with):
    trial = judge_with(wrapped.Faithful(Eager()), "forward", Problem(**SMALL))
    assert {v.outcome for v in trial.verdicts} == {"passed"}


@pytest.mark.parametrize("name", ["ReusedOutput", "ReusedIds", "SecondCallWeights"])
def test_state_kept_between_calls_is_seen(name):
    found = attempt(
        all_properties()["repetition_is_bitwise_equal"],
        Problem(tokens=6, hidden=20, ffn=18, experts=6, top_k=2),
        getattr(wrapped, name)(Eager()),
        name,
        CPU,
    )
    assert found.seen == {("DET-1", "exact")}


# -- matrix ----------------------------------------------------------------------------------------------------------

KILL = {"property": "down", "problem": dict(SMALL), "ended": "", "message": "wrong", "problems": 2, "seconds": 0.5}


def outcome(mutant: Mutant | None = None, *, kill: bool = False, raised: int = 0, **fields) -> Outcome:
    done = {"kill": {**KILL, "seen": [("DOWN-1", "sound")]} if kill else None, "seen": [("DOWN-1", "sound")] * kill}
    done |= {"problems": 5, "raised": raised, "complete": True}
    return Outcome(Task(mutant or entry(), "down", [], 9.0), **{"done": done, **fields})


@pytest.mark.parametrize(
    ("found", "verdict", "by"),
    [
        (outcome(kill=True), "killed", "DOWN-1 sound"),
        (outcome(), "survived", ""),
        (outcome(entry(equivalent="because")), "equivalent", ""),
        (outcome(entry(equivalent="because"), kill=True), "invalid", "DOWN-1 sound"),
        (outcome(kill=True, raised=5), "invalid", "DOWN-1 sound"),
        (outcome(kill=True, raised=4), "killed", "DOWN-1 sound"),
        (outcome(entry(raises=True), kill=True, raised=5), "killed", "DOWN-1 sound"),
        (outcome(done=None, ended="timeout", tried=3), "timeout", "3 problems without a kill, then the limit"),
        (outcome(done=None, ended="crash", trying={"property": "down", "problem": dict(SMALL)}), "killed", "crash"),
        (outcome(done=None, ended="broken", log="SyntaxError"), "invalid", "SyntaxError"),
        (outcome(done=None, ended="timeout", killed={**KILL, "seen": []}), "killed", ""),
    ],
)
def test_verdicts(found, verdict, by):
    made = matrix.finding(found)
    assert made.verdict == verdict
    assert matrix.killed_by(made) == by


def test_the_result_is_data_and_its_rate_leaves_out_what_does_not_count(tmp_path):
    findings = [
        matrix.finding(outcome(kill=True)),
        matrix.finding(outcome(entry(id="b-survivor"))),
        matrix.finding(outcome(entry(id="c-same", equivalent="because"))),
        matrix.not_applicable(entry(id="d-device", where="gpu", why="no device")),
    ]
    result = matrix.Matrix(
        environment={"backend": "cpu"},
        profile="gate",
        seed=0,
        source_digest="0" * 64,
        control=matrix.Control(problems=9, seconds=1.0),
        findings=findings,
        seconds=2.0,
    )
    assert result.rate == 0.5
    assert [f.id for f in result.of("survived")] == ["b-survivor"]
    result.write(tmp_path / "m.json")
    assert matrix.Matrix.read(tmp_path / "m.json") == result
    text = matrix.markdown(result)
    assert "| a-mutant | down | gemm | killed | DOWN-1 sound | 2 | 0.5 |" in text
    assert "| mutant | DO1 |" in text
    assert "| a-mutant | S |" in text
    with pytest.raises(ValueError, match="schema_version"):
        matrix.Matrix.model_validate({**result.model_dump(), "schema_version": 2})


# -- command ---------------------------------------------------------------------------------------------------------


# The command with combine's landmarks alone. (Not in the tests' process: the command must import the kernels anew.)
BRIEFLY = """
from moe_conformance import profiles
few = tuple(mark for mark in profiles.landmarks() if "combine" in mark.kinds)
profiles.landmarks = lambda: few
from moe_conformance.cli import main
main()
"""


def test_the_command_kills_a_mutant_and_writes_its_result(python, tmp_path):
    arguments = ("--profile", "dev", "--problems", "10", "--workers", "2", "--record", "m.json", "--markdown", "m.md")
    only = ("--only", "combine-weights-missing", "--only", "combine-output-offset-in-32-bits")
    done = python("-c", BRIEFLY, "mutants", "--backend", "cpu", *only, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    result = matrix.Matrix.read(tmp_path / "m.json")
    assert [f.verdict for f in result.findings] == ["killed", "not applicable"]
    assert result.control.problems > 20
    assert {s.requirement for s in result.findings[0].kill.by} <= {"COMB-1", "COMB-2"}
    assert "combine-weights-missing" in (tmp_path / "m.md").read_text()


def test_a_gate_whose_control_fails_proves_nothing(cli, tmp_path):
    missing = next(m for m in catalogue() if m.id == "combine-weights-missing")
    build(missing.edits, tmp_path / "broken")
    only = ("--only", "combine-order-for-inverse", "--problems", "30")
    done = cli("mutants", "--backend", "cpu", *only, PYTHONPATH=str(tmp_path / "broken"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "unmutated kernels fail" in done.stdout


CRASH = """
import ctypes, json
from moe_conformance.mutants import catalogue, hunt, pool, wrapped
from moe_conformance.plan import RunOptions

class Dies(wrapped.Faithful):
    def combine(self, *arguments):
        ctypes.string_at(0)

class Hangs(wrapped.Faithful):
    def combine(self, *arguments):
        while True:
            pass

wrapped.Dies, wrapped.Hangs, pool.GRACE = Dies, Hangs, 1.0
drawn = pool.draw("cpu", lambda name: RunOptions("tritonmoe", name, "gate", ("combine",), problems=10))
pool.preload(drawn.backend)
entry = {"class": "combine", "source": "here", "stage": "combine"}
mutants = [catalogue.Mutant(**entry, id=f"it-{name.lower()}", wrap=name) for name in ("Dies", "Hangs", "NoSuch")]
# What hangs has long enough to have begun, on a busy machine too; what dies or cannot start does so by itself.
seconds = {"it-hangs": 10.0}
tasks = [pool.Task(m, m.stage, hunt.relevant(drawn.queues, m.stage), seconds.get(m.id, 120.0)) for m in mutants]
print(json.dumps({o.task.mutant.id: [o.ended, o.tried] for o in pool.run_all(tasks, drawn.backend, 2)}))
"""


def test_children_that_die_hang_or_cannot_start_are_told_apart(python):
    done = python("-c", CRASH)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"it-dies": ["crash", 1], "it-hangs": ["timeout", 1], "it-nosuch": ["broken", 0]}


def test_a_missing_device_is_refused(cli):
    done = cli("mutants", "--backend", "rocm", "--only", "combine-weights-missing")
    assert done.returncode == 2
    assert "backend rocm was asked for" in done.stderr


def test_an_unknown_mutant_is_refused():
    done = CliRunner().invoke(main, ["mutants", "--only", "nobody"])
    assert done.exit_code == 2
    assert "no such mutant: nobody" in done.output


def test_the_list_names_every_mutant():
    listed = CliRunner().invoke(main, ["mutants", "--list"]).output
    assert [mutant.id for mutant in catalogue() if mutant.id not in listed] == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('  File "/a/b-c/site-packages/triton/language/core.py", line 3 in f', '  File "core.py", line 3 in f'),
        ("at /home/me/kernels/stages/down_kernel.py:7: 1/2 is no path, a/b.py neither", None),
        ("no path at all", "no path at all"),
    ],
)
def test_a_result_says_nothing_of_folders(text, kept):
    wanted = kept or "at down_kernel.py:7: 1/2 is no path, a/b.py neither"
    assert matrix.without_folders(text) == wanted
