"""The benchmarks' arithmetic: floors, loads, verdicts, tables and plots. Nothing here looks at a clock's reading."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from benchmarks import check, dtypes, floor, peers, plots, report, traffic, workloads
from benchmarks.cli import main
from benchmarks.competitors import NAMES, installed, route
from benchmarks.floor import Ceilings
from benchmarks.layer import make_batch, make_layer
from benchmarks.reference import TOLERANCE, error, reference
from benchmarks.results import Case, Measured, Results
from benchmarks.run import Options, run
from benchmarks.suite import SuiteRun, compile_share
from benchmarks.timing import Clock, Deadline, NotCapturable, Repeats, Sample
from click.testing import CliRunner
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = workloads.published_ceilings()[1]
TINY = workloads.shapes()["tiny"]
CPU = torch.device("cpu")


def sample(seconds: float) -> Sample:
    return Sample(seconds, 0.9 * seconds, 1.1 * seconds, 9)


def case(shape="qwen3-30b", tokens=512, load="uniform", ratio=1.2, digest="d", graph=True) -> Case:
    made = Case(shape, tokens, load, 128, digest, 1e-4, 1.1e-4, 1e-4)
    timed = sample(ratio * 1e-4)
    made.implementations["tritonmoe"] = Measured(timed if graph else None, timed, sample(3e-5), 0.004)
    made.implementations["loop"] = Measured(None, sample(9e-4), sample(8e-4), 0.004, graph_note="waits for the device")
    made.stages = {name: Measured(sample(3e-5)) for name in floor.ALL_STAGES}
    return made


def results(*cases: Case) -> Results:
    protocol = {"device": {"name": "NVIDIA H200"}, "dtype": "bf16", "repeats": asdict(Repeats())}
    return Results(protocol, PUBLISHED, {"tritonmoe": "this checkout"}, list(cases), complete=True)


# ---- the floor


@pytest.mark.parametrize("shape", [shape.name for shape in workloads.default_shapes()])
@pytest.mark.parametrize("column", [0, 5, 6])
def test_the_floor_is_that_of_the_published_table(shape, column):
    # At T=1 exactly k experts are active, at T >= 2048 all of them: there the table needs no drawn load.
    found = workloads.shapes()[shape]
    tokens = peers.data()["tokens"][column]
    active = found.top_k if tokens == 1 else found.experts
    seconds = floor.whole(found, tokens, active, 2).seconds(PUBLISHED)
    assert seconds * 1e6 == pytest.approx(peers.data()[shape]["floor_us"][column], abs=0.51 + 0.002 * seconds * 1e6)


@pytest.mark.parametrize("shape", [shape.name for shape in workloads.default_shapes()])
@pytest.mark.parametrize("column", [0, 1])
def test_the_stage_floor_is_that_of_the_published_table(shape, column):
    found = workloads.shapes()[shape]
    tokens = peers.data()["stage_tokens"][column]
    seconds = floor.stage_floor(found, tokens, found.experts, 2, PUBLISHED)
    assert seconds * 1e6 == pytest.approx(peers.data()[shape]["stage_floor_us"][column], rel=0.003)


def test_the_floor_by_hand():
    # 2 experts · 3 · 64 · 32 weights and 2 · 1 · 64 activations of 2 bytes; 6 · 1 · 2 · 64 · 32 operations
    cost = floor.whole(TINY, 1, 2, 2)
    assert cost.bytes == 24_832
    assert cost.operations == 24_576
    assert cost.seconds(Ceilings(1e9, 1e12)) == pytest.approx(24_832e-9)
    assert cost.seconds(Ceilings(1e12, 1e9)) == pytest.approx(24_576e-9)


def test_gate_up_traffic_by_hand():
    # weights 2 · 2 · 64 · 32, x 64, h 2 · 32; unfused: x once more and four times h more; 2 bytes each
    assert floor.gate_up_traffic(TINY, 1, 2, 2) == {"fused": 16_640.0, "unfused": 17_280.0}


# ---- loads


def test_the_active_experts_of_uniform_loads_are_as_many_as_expected():
    for shape in (workloads.shapes()["deepseek-v3"], workloads.shapes()["qwen2-57b"]):
        for tokens in (8, 32, 128):
            logits = workloads.draw_logits(shape, tokens, "uniform")
            active = np.unique(workloads.top_ids(logits, shape.top_k)).size
            expected = floor.expected_active(shape.experts, tokens * shape.top_k)
            assert abs(active - expected) < 0.12 * shape.experts


def test_every_expert_is_active_in_a_long_context():
    shape = workloads.shapes()["qwen3.5"]
    ids = workloads.top_ids(workloads.draw_logits(shape, 32768, "uniform"), shape.top_k)
    assert np.unique(ids).size == 256


def test_ids_are_distinct_and_the_popular_experts_stand_anywhere():
    shape = workloads.shapes()["qwen3-30b"]
    ids = workloads.top_ids(workloads.draw_logits(shape, 2048, "zipf2"), shape.top_k)
    assert ids.dtype == np.int32
    assert all(len(set(row)) == shape.top_k for row in ids.tolist())
    ranking = [expert for expert, _ in Counter(ids.ravel().tolist()).most_common(8)]
    assert ranking != sorted(ranking)


def test_zipf_loads_follow_the_law():
    # The first choice of a token is a draw from the law itself: its frequencies are those of ranks 1, 2, 3.
    shape = workloads.shapes()["qwen3-30b"]
    tokens = 20_000
    first = workloads.top_ids(workloads.draw_logits(shape, tokens, "zipf1.2"), 1).ravel()
    counts = np.sort(np.bincount(first, minlength=shape.experts))[::-1] / tokens
    law = workloads.zipf(shape.experts, 1.2)
    assert law.sum() == pytest.approx(1)
    assert law[1] / law[0] == pytest.approx(2**-1.2)
    assert np.abs(counts[:3] - law[:3]).max() < 5 * np.sqrt(law[0] / tokens)


def test_loads_are_the_same_on_every_run_and_differ_from_each_other():
    digests = {
        load: workloads.digest(workloads.top_ids(workloads.draw_logits(TINY, 16, load), 2))
        for load in workloads.loads()
    }
    again = workloads.digest(workloads.top_ids(workloads.draw_logits(TINY, 16, "uniform"), 2))
    assert digests["uniform"] == again
    assert len(set(digests.values())) == 3


@pytest.mark.parametrize("load", ["zipf", "zipf-1", "zipf0", "hot", "zipfx"])
def test_other_loads_are_refused(load):
    with pytest.raises(ValueError, match="a load is"):
        workloads.exponent(load)


# ---- correctness before speed


@pytest.mark.parametrize("name", ["grouped_mm", "loop"])
def test_competitors_without_triton_agree_with_the_reference(name):
    layer = make_layer(TINY, torch.bfloat16, CPU)
    batch = make_batch(TINY, 33, "zipf1.2", torch.bfloat16, CPU)
    forward = installed((name,))[0][name].prepare(layer)
    assert error(reference(layer, batch), forward(batch.x, batch.logits)) < TOLERANCE


def test_the_reference_sees_a_wrong_expert_and_a_nan():
    layer = make_layer(TINY, torch.bfloat16, CPU)
    batch = make_batch(TINY, 33, "uniform", torch.bfloat16, CPU)
    forward = installed(("loop",))[0]["loop"].prepare(layer)
    expected = reference(layer, batch)
    assert error(expected, forward(batch.x, batch.logits.roll(1, dims=1))) > 0.5
    out = forward(batch.x, batch.logits)
    out[5, 7] = float("nan")
    assert error(expected, out) == float("inf")


def test_routing_of_torch_is_the_drawn_one():
    batch = make_batch(TINY, 64, "zipf2", torch.bfloat16, CPU)
    ids, weights = route(batch.logits, TINY.top_k)
    assert torch.equal(ids, batch.ids)
    assert torch.allclose(weights.sum(-1), torch.ones(64))


def test_interleaved_rows_alternate():
    layer = make_layer(TINY, torch.bfloat16, CPU)
    both = layer.interleaved()
    assert torch.equal(both[:, 0::2], layer.w_gate)
    assert torch.equal(both[:, 1::2], layer.w_up)


def test_an_absent_package_is_a_fact_and_no_error():
    found, facts = installed(NAMES)
    assert {"tritonmoe", "grouped_mm", "loop"} <= set(found)
    assert set(facts) == set(NAMES)


# ---- timing without a clock


def test_repeats_stay_in_their_bounds():
    repeats = Repeats(least=5, most=30, seconds=0.15)
    assert [repeats.count(one) for one in (1.0, 0.01, 1e-6, 0.0)] == [5, 15, 30, 30]


def test_a_cpu_has_no_graphs_and_a_deadline_may_be_absent():
    with pytest.raises(NotCapturable):
        Clock(CPU, Repeats()).replayed(lambda: None)
    assert not Deadline(None).passed()
    assert Deadline(-1.0).passed()


class Recorded(Clock):
    """A clock whose device is a list: a graph is the call itself, which notes its name and says how long it took."""

    def __init__(self):
        super().__init__(CPU, Repeats(least=2, most=4, seconds=4.0))
        self.device = torch.device("cuda", 0)
        self.seen = []

    def synchronize(self):
        pass

    def _capture(self, call):
        if call is None:
            raise NotCapturable("waits")
        return mock.Mock(replay=call)

    def _queued(self, calls):
        return [call() for call in calls]

    def call(self, name, seconds):
        def replay():
            self.seen.append(name)
            return seconds

        return replay


def test_calls_take_turns_and_one_that_fails_leaves_the_others_alone():
    clock = Recorded()
    failure = RuntimeError("illegal address")
    broken = mock.Mock(side_effect=failure)
    calls = {"a": clock.call("a", 1.0), "none": None, "b": clock.call("b", 2.0), "broken": broken}
    found = clock.replayed_in_turns(calls)
    assert "".join(clock.seen) == "aabb" + "ab" + "ba" + "a" + "a", "two of each first; then 4 of a and 2 of b"
    assert found["a"] == Sample(1.0, 1.0, 1.0, 4)
    assert found["b"] == Sample(2.0, 2.0, 2.0, 2)
    assert isinstance(found["none"], NotCapturable)
    assert found["broken"] is failure


def test_loads_of_one_token_count_take_turns(tmp_path):
    """They are compared with each other: one after another would meet a device that is warmer each time."""
    device = torch.device("cpu")
    options = Options(
        [TINY],
        [1, 2],
        ["uniform", "zipf2"],
        ("grouped_mm",),
        Repeats(5, 5),
        "bf16",
        device,
        None,
        tmp_path,
        stages=False,
    )
    seen = []

    def in_turns(self, calls):
        seen.append(list(calls))
        return {name: sample(1.0 + at) for at, name in enumerate(calls)}

    with mock.patch.object(Clock, "replayed_in_turns", in_turns):
        made = run(options, lambda _: None)
    # The first calls are those of the ceilings, one by one.
    assert [each for each in seen if len(each) > 1] == [[("uniform", "grouped_mm"), ("zipf2", "grouped_mm")]] * 2
    assert [(each.tokens, each.load) for each in made.cases] == list(product((1, 2), ("uniform", "zipf2")))
    assert [each.implementations["grouped_mm"].graph.median for each in made.cases] == [1.0, 2.0, 1.0, 2.0]


def test_a_replay_that_fails_fails_its_token_count_alone(tmp_path):
    options = Options(
        [TINY], [1, 2], ["uniform", "zipf2"], ("grouped_mm",), Repeats(5, 5), "bf16", torch.device("cpu"), None,
        tmp_path, stages=False,
    )  # fmt: skip
    before, times = Clock.replayed_in_turns, []

    def in_turns(self, calls):
        if len(calls) == 2:
            times.append(1)
            if len(times) == 1:
                raise RuntimeError("illegal address")
        return before(self, calls)

    with mock.patch.object(Clock, "replayed_in_turns", in_turns):
        made = run(options, lambda _: None)
    assert made.complete
    assert [each.failure for each in made.cases] == ["RuntimeError: illegal address"] * 2 + [None] * 2


# ---- results, check, report


def test_results_survive_the_file(tmp_path):
    path = tmp_path / "results.json"
    before = results(case(), case(tokens=1, graph=False))
    before.write(path)
    assert Results.read(path) == before
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 7'))
    with pytest.raises(ValueError, match="schema 7"):
        Results.read(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="not a result"):
        Results.read(path)


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (case(ratio=1.2), "ok"),
        (case(ratio=1.31), "ok"),
        (case(ratio=1.33), "slower"),
        (case(ratio=1.0), "faster"),
        (case(digest="other"), "another load"),
        (case(graph=False), "failed"),
        (case(tokens=8), "missing"),
    ],
)
def test_the_guard_compares_ratios(after, verdict):
    (finding,) = check.compare(results(case()), results(after), "tritonmoe", 0.10)
    assert finding.verdict == verdict
    assert bool(check.broken([finding])) == (verdict in check.BROKEN)


def test_the_guard_is_indifferent_to_a_slower_machine():
    slower = case()
    slower = replace(slower, floor=2 * slower.floor)
    slower.implementations["tritonmoe"] = Measured(sample(2 * 1.2e-4))
    assert [finding.verdict for finding in check.compare(results(case()), results(slower), "tritonmoe", 0.1)] == ["ok"]


def test_the_guard_sees_what_became_wrong_or_failed():
    for measured, verdict in ((Measured(error=0.7, wrong=True), "wrong"), (Measured(failure="boom"), "failed")):
        after = case()
        after.implementations["tritonmoe"] = measured
        assert check.compare(results(case()), results(after), "tritonmoe", 0.1)[0].verdict == verdict


def test_check_on_the_command_line(tmp_path):
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    results(case()).write(before)
    results(case(ratio=2.0)).write(after)
    runner = CliRunner()
    assert runner.invoke(main, ["check", str(before), "--current", str(before)]).exit_code == 0
    slower = runner.invoke(main, ["check", str(before), "--current", str(after)])
    assert slower.exit_code == 1
    assert "slower" in slower.output
    assert runner.invoke(main, ["check", str(before), "--current", str(after), "--tolerance", "1"]).exit_code == 0


def test_the_best_peer_of_a_cell():
    assert peers.best("mixtral", 128) == peers.Peer("OpenAI", 1.02)
    assert peers.best("gpt-oss", 8192) == peers.Peer("best", 1.64)
    assert peers.best("mixtral", 7) is None
    assert peers.best_zipf("qwen3-30b", 8192) == peers.Peer("OpenAI", 1171)
    assert peers.best_zipf("mixtral", 1) is None
    assert peers.best("tiny", 1) is None


def test_every_published_row_is_as_long_as_the_token_counts():
    tokens = peers.data()["tokens"]
    assert tokens == workloads.token_counts()
    for shape in workloads.default_shapes():
        entry = peers.data()[shape.name]
        assert all(len(row) == len(tokens) for row in [entry["floor_us"], *entry["ratio"].values()])


def test_the_report_says_what_is_behind_wrong_and_missing(tmp_path):
    behind, wrong = case(ratio=1.4), case(tokens=8)  # the best peers there are 1.17 and 1.29
    wrong.implementations["loop"] = Measured(error=0.5, wrong=True)
    found = results(behind, wrong, case(load="zipf2"), case(load="zipf1.2"))
    found.implementations["vllm"] = "not installed: No module named 'vllm'"
    with (tmp_path / "report").open("w+") as file:
        report.print_all(Console(file=file, width=200), found)
        file.seek(0)
        text = file.read()
    assert "1.40 | 1.17 ✗" in text
    assert "1.20 | 1.29" in text
    assert "1 of 2 cells more than 5 % behind" in text
    assert "loop is wrong, relative error 0.5" in text
    assert "vllm: not installed" in text
    assert "time / floor, zipf2 load" in text
    assert re.search(r"343 \(OpenAI\) +│ 0\.35", text)
    assert report.skew_costs(found)["qwen3-30b", "zipf2"] == {512: pytest.approx(1.2 / 1.4)}


def test_plots_are_drawn_from_a_result(tmp_path):
    found = results(*(case(tokens=tokens, load=load) for tokens in (1, 512) for load in ("uniform", "zipf2")))
    written = plots.draw(found, tmp_path)
    assert [path.name for path in written] == ["roofline.png", "tokens.png", "skew.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert plots.draw(results(), tmp_path) == []


# ---- the other commands


def test_the_profilers_table_is_summed_over_kernels_and_directions():
    text = "\n".join(
        [
            "==PROF== Connected",
            '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"',
            '"0","k","dram__bytes_read.sum","Mbyte","1,200.5"',
            '"0","k","dram__bytes_write.sum","Kbyte","500"',
            '"1","l","dram__bytes_read.sum","byte","7"',
            '"1","l","gpu__time_duration.sum","usecond","7"',
        ]
    )
    assert traffic.parse(text) == pytest.approx(1200.5e6 + 500e3 + 7)
    assert traffic.parse("==ERROR== ERR_NVGPUCTRPERM") is None


def test_the_compilers_share_is_that_of_the_two_runs_that_differ_by_the_cache():
    runs = [
        SuiteRun("all", "cuda", cache, 2, 400, 400, seconds, "passed")
        for cache, seconds in (("empty", 40.0), ("warm", 30.0))
    ]
    assert compile_share(runs) == pytest.approx(0.25)
    assert compile_share(runs[:1]) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--shapes", "no-such"],
        ["run", "--loads", "hot"],
        ["run", "--tokens", "0"],
        ["run", "--implementations", "nobody"],
        ["check", "/no/such/file"],
        ["tune", "--stages", "combine"],
    ],
)
def test_wrong_calls_end_with_code_2(arguments):
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_dtypes_are_compared_by_the_clock_and_by_their_own_floors():
    pair = dtypes.Pair("tiny", 8, {"fp16": 1.1, "bf16": 1.0}, {"fp16": 1.1, "bf16": 1.0})
    assert pair.clock == 1.1
    assert pair.over_floor == pytest.approx(1.0)
    clock = Clock(torch.device("cpu"), Repeats(5, 5))
    turns = mock.Mock(return_value={"bf16": sample(2.0), "fp16": NotCapturable("no graphs")})
    with mock.patch.object(Clock, "replayed_in_turns", turns), mock.patch.object(Clock, "eager") as eager:
        eager.return_value = sample(3.0)
        (found,) = dtypes.measure(TINY, [2], clock, {"bf16": PUBLISHED, "fp16": PUBLISHED})
    assert list(turns.call_args.args[0]) == ["bf16", "fp16"]
    assert (found.seconds, found.clock) == ({"bf16": 2.0, "fp16": 3.0}, 1.5)
    assert found.floors["bf16"] == found.floors["fp16"] > 0


def test_a_whole_run_on_a_cpu(tmp_path):
    # Triton's interpreter: what is measured means nothing, but every path of a run without graphs is walked.
    command = [sys.executable, "-m", "benchmarks", "run", "--device", "cpu", "--shapes", "tiny", "--tokens", "1"]
    command += ["--repeats", "5", "--implementations", "tritonmoe,loop,vllm", "--output", str(tmp_path), "--no-plots"]
    command += ["--loads", "uniform,zipf2"]
    folders = [str(ROOT), *(each for each in sys.path if each)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "results.json").read_text())
    assert [found["load"] for found in data["cases"]] == ["uniform", "zipf2"]
    for found in data["cases"]:
        assert found["implementations"]["tritonmoe"]["error"] < TOLERANCE
        assert set(found["stages"]) == set(floor.ALL_STAGES)
    assert data["protocol"]["versions"]["torch"] == torch.__version__
    assert data["complete"]
