"""What is drawn: valid problems within the declaration, the same ones for a seed, shrunk when they fail."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_conformance import explore as module
from moe_conformance.backends import Backend
from moe_conformance.explore import Part, explore, part_seed
from moe_conformance.findings import NonConformance
from moe_conformance.implementation import Declaration, load
from moe_conformance.judge import holds
from moe_conformance.kinds import KINDS
from moe_conformance.problem import Problem
from moe_conformance.profiles import PROFILE_NAMES, landmark_problems, landmarks, model_problems, models, profile
from moe_conformance.registry import all_properties, make_trial
from moe_conformance.strategies import problems

CPU = Backend("cpu", "cpu")
LIMITS = profile("dev", CPU).limits
GPU_LIMITS = profile("gate", Backend("cuda", "cuda")).limits
DTYPES = ("fp32", "fp16", "bf16")
DRAWN_KINDS = tuple(name for name, kind in KINDS.items() if kind.drawn)
PLAIN = Declaration(
    "plain",
    layouts=("contiguous",),
    input_precisions=("ieee",),
    groups=False,
    selection_bias=False,
    logit_bias=False,
    expert_scale=False,
    expert_bias=False,
    shared_expert=False,
)
DECLARATIONS = {
    "everything": Declaration("everything"),
    "plain": PLAIN,
    "sigmoid only": replace(PLAIN, scorings=("sigmoid",), groups=True),
    "gpt-oss": replace(PLAIN, scorings=("softmax_selected",), activations=("swiglu_clamped",), logit_bias=True),
    "gelu, packed": replace(PLAIN, activations=("gelu_tanh",), layouts=("packed", "interleaved")),
    "eight experts": replace(PLAIN, max_experts=8),
    "tf32 only": replace(PLAIN, input_precisions=("tf32",)),
}


def drawable(declaration: Declaration) -> list[str]:
    """The drawn kinds of problem that a plan with this declaration may hold."""
    return [k for k in DRAWN_KINDS if not KINDS[k].activations or {*KINDS[k].activations} & {*declaration.activations}]


@pytest.mark.parametrize("limits", [LIMITS, GPU_LIMITS], ids=["interpreter", "gpu"])
@pytest.mark.parametrize("name", DECLARATIONS)
def test_drawn_problems_are_supported(name, limits):
    """Whatever is drawn can also be replayed: the declaration covers it, and the limits hold."""
    declaration = DECLARATIONS[name]

    @settings(max_examples=40, deadline=None, database=None, derandomize=True)
    @given(kind=st.sampled_from(drawable(declaration)), dtype=st.sampled_from(DTYPES), data=st.data())
    def check(kind, dtype, data):
        problem = data.draw(problems(kind, dtype, limits, declaration))
        assert Problem.from_json(problem.to_json()) == problem
        assert problem.dtype == dtype
        assert declaration.supports(problem, KINDS[kind]), kind
        if kind == "precision":  # few and long: sizes of their own
            assert max(problem.hidden, problem.ffn) <= limits.long
            assert problem.tokens * min(problem.hidden, problem.ffn) >= 7500
            return
        routed = kind in ("route", "permute")
        assert problem.tokens <= (limits.routed_tokens if routed else limits.tokens)
        assert problem.experts <= min(declaration.max_experts, limits.routed_experts if routed else limits.experts)
        assert problem.hidden <= limits.hidden
        assert problem.ffn <= limits.ffn
        assert problem.experts * problem.hidden * problem.ffn <= max(limits.weights, problem.experts)

    check()


SLICES = 1000  # more than there are fixed problems: the last slice has none


def part(name: str, dtype: str = "fp16", draws: int = 30, index: int = SLICES - 1, seed: int = 0) -> Part:
    """The last of many slices, without fixed problems; the first, with all of them, where index is 0."""
    prop = all_properties()[name]
    return Part(prop, dtype, index, draws, part_seed(seed, prop.name, dtype, index), SLICES if index else 1)


def seen(made: Part, declaration: Declaration = DECLARATIONS["everything"]) -> list[str]:
    ids: list[str] = []
    explore(made, LIMITS, declaration, lambda problem, counts: ids.append(problem.id))
    return ids


def test_a_seed_fixes_the_problems():
    first, second = seen(part("forward")), seen(part("forward"))
    assert first == second
    assert len(set(first)) >= 0.8 * 30, "a run counts distinct problems"
    assert seen(part("forward", seed=1)) != first
    assert seen(part("forward", dtype="bf16")) != first


# What a run of the suite draws, in a process of its own: a digest of the ids of problems of six properties.
DRAW = """
import hashlib, sys
{imports}
from moe_conformance.backends import Backend
from moe_conformance.explore import Part, explore, part_seed
from moe_conformance.implementation import Declaration
from moe_conformance.profiles import profile
from moe_conformance.registry import all_properties

limits, ids = profile("dev", Backend("cpu", "cpu")).limits, []
for name, prop in sorted(all_properties().items()):
    if prop.kind.drawn and len(ids) < 120:
        part = Part(prop, "fp16", 999, 20, part_seed(0, name, "fp16", 1), 1000)
        explore(part, limits, Declaration("everything"), lambda problem, counts: ids.append(problem.id))
print(hashlib.sha256("\\n".join(ids).encode()).hexdigest()[:16])
"""


def test_the_drawn_problems_do_not_depend_on_what_else_is_imported(python, tmp_path):
    """Two records can be compared only if both machines drew the same problems, whatever is under test there.

    Hypothesis draws some of its integers from the literals of modules that lie outside site-packages: an implementation
    in the user's folder, or a checkout instead of a wheel, must not change the set.
    """
    (tmp_path / "implementation.py").write_text(f"TABLE = {[7919 * n**3 % 2**32 for n in range(1, 400)]}\n")
    alone = python("-c", DRAW.format(imports=""))
    beside = python("-c", DRAW.format(imports="import implementation"), PYTHONPATH=str(tmp_path))
    assert alone.returncode == beside.returncode == 0, alone.stderr + beside.stderr
    assert alone.stdout == beside.stdout


def test_the_drawn_problems_of_the_pinned_hypothesis(python):
    """With Hypothesis's global constants alone. Another digest means: older records cannot be compared any more."""
    done = python("-c", DRAW.format(imports=""))
    assert done.returncode == 0, done.stderr
    assert (hypothesis.__version__ != "6.170.15") or done.stdout.strip() == "5a3aa24bcb994166"


def test_part_seeds_are_fixed():
    assert part_seed(0, "forward", "fp16", 1) == 9974988782797455135
    seeds = {part_seed(s, n, d, i) for s in (0, 1) for n in ("forward", "route") for d in DTYPES for i in range(4)}
    assert len(seeds) == 48


def fails_if(condition, calls: list | None = None):
    """A run function that fails on some problems, as a property would."""

    def run(problem: Problem, counts: bool) -> None:
        if calls is not None:
            calls.append((problem, counts))
        trial = make_trial(all_properties()["forward"], problem, load("eager"), "fake", CPU)
        trial._add(holds("FWD-1", not condition(problem), "planted"))

    return run


DEFECTS = {
    "several tokens and experts": (lambda p: p.tokens >= 3 and p.experts >= 2, lambda p: p.tokens * p.experts <= 6),
    "a tail of ffn": (lambda p: p.ffn > 16 and p.ffn % 16 != 0, lambda p: p.ffn == 17 and p.tokens <= 1),
    "gelu": (lambda p: p.activation == "gelu_tanh", lambda p: p.tokens * p.hidden * p.ffn <= 1),
    "an empty expert": (lambda p: p.load.empty > 0, lambda p: p.experts == 2 and p.load.empty == 1),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_failure_shrinks_to_a_small_problem(name):
    defect, small = DEFECTS[name]
    calls: list[tuple[Problem, bool]] = []
    with pytest.raises(NonConformance) as caught:
        explore(part("forward", draws=60), LIMITS, DECLARATIONS["everything"], fails_if(defect, calls))
    found = caught.value.findings.problem
    assert defect(found)
    assert small(found), found
    first = next(i for i, (problem, _) in enumerate(calls) if defect(problem))
    assert all(counts for _, counts in calls[: first + 1]), "what is drawn counts"
    assert not any(counts for _, counts in calls[first + 1 :]), "what is tried while shrinking does not"
    assert len(calls) > first + 1


@pytest.mark.parametrize("patience", [0, 1, 2, 3, 5, 8, 13, 40])
def test_shrinking_may_stop_at_any_moment(patience, monkeypatch):
    """The clock runs out after some shrinking steps: the best failure so far is reported, and it is a real one."""
    ticks = iter(range(10**9))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    monkeypatch.setattr(module, "SHRINK_SECONDS", float(patience))
    defect = DEFECTS["several tokens and experts"][0]
    with pytest.raises(NonConformance) as caught:
        explore(part("forward", draws=60), LIMITS, DECLARATIONS["everything"], fails_if(defect))
    assert defect(caught.value.findings.problem)


def test_a_defect_that_comes_and_goes_is_still_a_non_conformance():
    """A race fails once and passes when it is run again. That is the failure, and not an error of the suite."""
    calls = iter(range(10**9))
    failing: list[Problem] = []

    def once(problem: Problem) -> bool:
        if next(calls) != 4:
            return False
        failing.append(problem)
        return True

    with pytest.raises(NonConformance, match="did not fail again on every repetition") as caught:
        explore(part("forward"), LIMITS, DECLARATIONS["everything"], fails_if(once))
    assert caught.value.findings.problem == failing[0]


def test_fixed_problems_come_first_and_all_of_them_run():
    """The first failing one is reported when no drawn problem fails."""
    wanted = landmark_problems("forward", "fp16")
    calls: list[tuple[Problem, bool]] = []
    bad = {wanted[1].id, wanted[3].id}
    run = fails_if(lambda p: p.id in bad, calls)
    with pytest.raises(NonConformance) as caught:
        explore(part("forward", index=0, draws=3), LIMITS, DECLARATIONS["everything"], run)
    assert [problem for problem, _ in calls[: len(wanted)]] == wanted
    assert caught.value.findings.problem == wanted[1]
    assert len(calls) >= len(wanted) + 3
    calls.clear()
    explore(part("forward", draws=3), LIMITS, DECLARATIONS["everything"], run)
    assert not bad & {problem.id for problem, _ in calls}, "the last of very many slices has none"


def test_fixed_problems_outside_the_declaration_are_left_out():
    ids = seen(part("forward", index=0, draws=1), DECLARATIONS["sigmoid only"])
    fixed = landmark_problems("forward", "fp16")
    kept = [p.id for p in fixed if DECLARATIONS["sigmoid only"].supports(p, KINDS["forward"])]
    assert 0 < len(kept) < len(fixed)
    assert ids[: len(kept)] == kept
    assert not set(ids[len(kept) :]) & {p.id for p in fixed}


@pytest.mark.parametrize("slices", [1, 2, 7])
def test_slices_share_out_the_fixed_problems(slices):
    prop, declaration = all_properties()["forward"], DECLARATIONS["everything"]
    shared = [Part(prop, "fp16", index, 0, 0, slices).fixed(declaration) for index in range(slices)]
    assert sorted(p.id for part in shared for p in part) == sorted(
        p.id for p in Part(prop, "fp16", 0, 0, 0, 1).fixed(declaration)
    )
    assert max(map(len, shared)) - min(map(len, shared)) <= 1


@pytest.mark.parametrize("dtypes", [DTYPES, ("bf16",), ("bf16", "fp32")])
def test_landmarks_taken_in_turn_come_once_each(dtypes):
    declaration = replace(DECLARATIONS["everything"], dtypes=dtypes)
    prop = next(prop for prop in all_properties().values() if prop.in_turn and prop.dtypes == DTYPES)
    marks = [mark for mark in landmarks() if prop.problems in mark.kinds]
    found = {dtype: Part(prop, dtype, 0, 0, 0, 1).fixed(declaration) for dtype in dtypes}
    together = [p.model_copy(update={"dtype": dtypes[0]}).id for made in found.values() for p in made]
    assert len(together) == len(set(together))
    every = [Problem.from_json({**mark.problem, "dtype": dtypes[0]}) for mark in marks]
    assert sorted(together) == sorted(p.id for p in every if prop.accepts(p) and declaration.supports(p, prop.kind))
    assert max(map(len, found.values())) - min(map(len, found.values())) <= 3


def test_properties_begin_their_turns_with_different_dtypes():
    every = DECLARATIONS["everything"]
    taking = [prop for prop in all_properties().values() if prop.in_turn]
    assert len({Part(prop, "fp32", 0, 0, 0, 1)._turns(every) for prop in taking}) > 1


def test_only_accepted_problems_are_drawn():
    prop = all_properties()["sick_token_is_isolated"]
    drawn: list[Problem] = []
    made = Part(prop, "fp32", 0, 40, 5, 1)
    explore(made, LIMITS, DECLARATIONS["everything"], lambda problem, counts: drawn.append(problem))
    assert drawn
    assert all(p.tokens > 1 for p in drawn)


# -- fixed problems --------------------------------------------------------------------------------------------------


def test_landmarks_parse_for_every_kind_and_dtype_they_name():
    total = 0
    for mark in landmarks():
        assert mark.why
        assert set(mark.kinds) <= set(KINDS)
        assert set(mark.dtypes) <= set(DTYPES)
        total += len(mark.kinds) * len(mark.dtypes)
    found = [(kind, dtype, p) for kind in KINDS for dtype in DTYPES for p in landmark_problems(kind, dtype)]
    assert len(found) == total > 0
    for kind, dtype, problem in found:
        assert problem.dtype == dtype
        assert Declaration("any").supports(problem, KINDS[kind])
        assert Problem.from_json(problem.to_json()) == problem
    for kind in DRAWN_KINDS:
        if kind not in ("small_forward", "precision", "exact"):
            ids = [p.id for k, d, p in found if k == kind and d == "fp32"]
            assert len(ids) == len(set(ids)) >= 3, kind
    assert {p.tokens for _, _, p in found} >= {0, 1}


def test_model_layers_parse():
    for dtype in DTYPES:
        made = model_problems(dtype)
        assert len(made) % len(models()) == 0
        assert len({p.id for p in made}) == len(made) > 0
        volumes = [p.experts * p.hidden * p.ffn for p in made]
        assert volumes == sorted(volumes)


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_profiles_can_be_read_for_every_backend(name):
    for backend in (CPU, Backend("cuda", "cuda"), Backend("rocm", "cuda")):
        made = profile(name, backend)
        assert made.problems > 0
        assert made.slices > 0
        assert made.random == (name == "nightly"), "only nightly draws anew"


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="profile must be one of"):
        profile("weekly", CPU)
