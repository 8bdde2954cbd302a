"""A trial: one property applied to one problem with one implementation, and what came of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import executed, oracle
from .backends import Backend
from .findings import Findings, NonConformance
from .formats import FORMATS
from .generate import Inputs, generate
from .guards import INSIDE, UNCHANGED, Guards
from .implementation import Guarded, Permutation
from .judge import Verdict, holds, judge, judge_exact
from .oracle.ball import Arithmetic, Ball
from .sharp import Sample, judge_sharp, sample
from .statistics import judge_statistics


def _reporter(trial: Trial) -> Callable[[str, str], None]:
    """What the guarded implementation tells of memory faults. It must not keep the trial alive: gigabytes of inputs
    would then wait for the garbage collector, which does not know how full the device is."""
    kept = weakref.ref(trial)

    def report(requirement: str, message: str) -> None:
        found = kept()
        assert found is not None, "the implementation was called after its trial"
        found.expect(requirement, False, message)

    return report


@dataclass(kw_only=True)
class Trial(Findings):
    """What a property sees: the problem, its tensors, the implementation, and the judge.

    A failed claim raises NonConformance at once; refused comparisons are kept and counted. With `collects` a failed
    claim is kept too and the property goes on: a kill matrix wants every requirement and tier that sees a defect.
    After a waived failure it goes on with its other claims too.
    """

    implementation: Guarded
    backend: Backend
    whole_forward: bool = False
    large: bool = False
    collects: bool = False
    inputs: Inputs = field(init=False)
    reference: Inputs = field(init=False)
    guards: Guards | None = field(init=False)

    def __post_init__(self) -> None:
        self.guards = None if self.large else Guards()
        self.implementation = Guarded(self.implementation.unguarded, self.guards, _reporter(self))
        self.inputs = generate(self.problem, self.backend.device, whole_forward=self.whole_forward, guards=self.guards)
        # The oracle reads tensors of its own: an implementation that writes to its inputs cannot change its judge.
        # Only problems of gigabytes share them; MEM-1 watches over the inputs of the others.
        self.reference = (
            self.inputs if self.large else generate(self.problem, self.backend.device, whole_forward=self.whole_forward)
        )

    # -- claims ------------------------------------------------------------------------------------------------------

    def judge(self, requirement: str, value: Tensor, ball: Ball, *, source: Tensor | None = None) -> None:
        """`value` lies in `ball`, stored in the problem's dtype: the sound tier, and the statistical one if it can."""
        verdict = judge(requirement, value, ball, self.dtype, source=source)
        self._add(verdict)
        if value.shape == ball.mid.shape and value.dtype == self.dtype:
            self._add_if(judge_statistics(requirement, value, ball, self.dtype))

    def judge_sharp(
        self, requirement: str, value: Tensor, ball_of: Callable[[Sample], Ball], *, row_cost: int, element_cost: int
    ) -> None:
        """Sampled elements of `value` (rows, columns) lie in the sharp ball that `ball_of` a sample gives.

        row_cost, element_cost: products that the oracle multiplies for a sampled row, and for each of its elements.
        """
        if value.numel() == 0 or value.dim() != 2 or value.dtype != self.dtype:
            return  # the sound tier has said what is wrong
        chosen = sample((value.shape[0], value.shape[1]), row_cost, element_cost, value.device)
        self._add_if(judge_sharp(requirement, chosen.of(value), ball_of(chosen), self.dtype))

    def judge_exact(self, requirement: str, value: Tensor, want: Tensor, dtype: torch.dtype | None = None) -> None:
        """`value`, stored in `dtype` (the problem's by default), equals `want` (float64) in every element."""
        self._add(judge_exact(requirement, value, want, dtype or self.dtype))

    def judge_fp32(self, requirement: str, value: Tensor, ball: Ball) -> None:
        """`value` lies in `ball`, stored as fp32 (routing weights)."""
        self._add(judge(requirement, value, ball, torch.float32))

    def expect(self, requirement: str, condition: bool, message: str) -> None:
        """A claim without tolerance; `message` says what is wrong when it does not hold."""
        self._add(holds(requirement, bool(condition), message))

    def _add_if(self, verdict: Verdict | None) -> None:
        if verdict is not None:
            self._add(verdict)

    def record(self, verdict: Verdict) -> None:
        """A comparison that a property made by itself."""
        self._add(verdict)

    def renew(self) -> None:
        """Other values at the same addresses: every input made so far is overwritten with those of the problem with
        the next seed, which is the reference from now on."""
        other = self.problem.model_copy(update={"seed": (self.problem.seed + 1) % 2**32})
        self.reference = generate(other, self.backend.device, whole_forward=self.whole_forward)
        self.inputs.problem = other
        for name, tensor in self.inputs.made().items():
            tensor.copy_(self.reference.tensor(name))
        if self.guards is not None:
            self.guards.renew()

    def close(self) -> None:
        """After the property's last claim: no call wrote outside of its buffers or to its inputs. Every property may
        say so."""
        if self.guards is not None and self.verdicts and not self.failed:
            self.expect(INSIDE, True, "")
            self.expect(UNCHANGED, True, "")
        if self.backend.target and self.verdicts and not self.failed:
            self.expect(executed.GLOBAL, True, "")
            self.expect(executed.SHARED, True, "")

    def _add(self, verdict: Verdict) -> None:
        if verdict.requirement not in (*self.requirements, INSIDE, UNCHANGED, executed.GLOBAL, executed.SHARED):
            raise RuntimeError(f"{self.property_name} does not name {verdict.requirement} among its requirements")
        verdict = self._waived(verdict)
        self.verdicts.append(verdict)
        if verdict.failed and not self.collects:
            raise NonConformance(self.plain())

    # -- shorthands --------------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        return FORMATS[self.problem.dtype].dtype

    @property
    def arithmetic(self) -> Arithmetic:
        return self.implementation.declaration.arithmetic(self.problem)

    def permutation(self) -> Permutation:
        """The implementation's permutation of the drawn ids; judged elsewhere, used by later stages.

        An implementation without a permute stage gets the exact one.
        """
        self.note_routing(self.reference.ids)
        if "permute" in self.implementation.declaration.stages:
            found: Permutation = self.implementation.permute(self.inputs.ids, self.problem.experts)
            return found
        order, inverse, offsets = oracle.expected_permutation(self.reference.ids, self.problem.experts)
        return Permutation(order.int(), inverse.int(), offsets.int())

    def note_routing(self, ids: Tensor) -> None:
        """Record what this problem met: empty experts, one hot expert, ties."""
        counts = torch.bincount(ids.reshape(-1).long(), minlength=self.problem.experts)
        if self.problem.tokens and bool((counts == 0).any()):
            self.features.add("empty expert")
        if self.problem.tokens > 1 and self.problem.experts > 1 and int(counts.max()) == self.problem.tokens:
            self.features.add("one hot expert")


Check = Callable[[Trial], None]
