"""What is under test: a small protocol with one method for each stage, and a declaration of what it supports.

An implementation declares where it rounds and how it accumulates, because the oracle's bounds follow from that and
from nothing else. What it does not declare is not forgiven: an undeclared rounding shows as a violation.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from . import executed
from .calibration import calibration
from .formats import FORMATS, Format
from .generate import Inputs
from .guards import Guards, Watched
from .kinds import Kind
from .oracle.ball import TF32_PRODUCT, Arithmetic
from .problem import MAX_EXPERTS, Problem, Router

STAGES = ("route", "permute", "gate_up", "down", "combine", "forward")


class Routing(NamedTuple):
    """ids (T,k) int32 or int64, weights (T,k) fp32."""

    ids: Tensor
    weights: Tensor


class Permutation(NamedTuple):
    """order (M), inverse (M), offsets (E+1): integers. order[p] is the routed row t*k+j at sorted position p.

    `native` may carry an implementation's own object from its permute stage to its later stages.
    """

    order: Tensor
    inverse: Tensor
    offsets: Tensor
    native: object = None


class Forward(NamedTuple):
    """out (T,H) in the input's dtype, with the routing that was used."""

    out: Tensor
    ids: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Declaration:
    """What an implementation supports and how it computes.

    stages, dtypes, scorings, activations, layouts: names as in Problem; a problem outside them is never drawn.
    rounds: values rounded to the input's dtype on the way, of "gate_up" (both products), "activation", "h", "y" and
        "shared" (the shared expert's output times its gate); what is not named stays fp32.
    kappa: accumulation error of the matrix unit in u per product (docs/numerics.md); 2 where unknown.
    splits: partial sums of one product added up separately.
    flushes_subnormals: the matrix unit reads subnormal fp16 and bf16 inputs as zero (CDNA2).
    checks_arguments: raises TypeError or ValueError for the bad inputs of SPEC, section "bad input".
    capturable: may be captured in a device graph.
    row_invariant: the bits of a routed row, and of a token's results, do not depend on the row's or token's place, nor
        on what the others hold, as long as the number of tokens stays the same.
    batch_invariant: nor on the number of tokens.
    """

    name: str
    stages: frozenset[str] = frozenset(STAGES)
    dtypes: tuple[str, ...] = ("fp32", "fp16", "bf16")
    scorings: tuple[str, ...] = ("softmax", "sigmoid", "softmax_selected")
    activations: tuple[str, ...] = ("silu", "gelu_tanh", "swiglu_clamped")
    layouts: tuple[str, ...] = (
        "contiguous", "padded", "transposed", "offset", "packed", "interleaved", "column_major", "spaced",
    )  # fmt: skip
    input_precisions: tuple[str, ...] = ("ieee", "tf32")
    groups: bool = True
    selection_bias: bool = True
    logit_bias: bool = True
    expert_scale: bool = True
    expert_bias: bool = True
    shared_expert: bool = True
    max_experts: int = MAX_EXPERTS
    rounds: frozenset[str] = frozenset({"h", "y", "shared"})
    kappa: float = 2.0
    splits: int = 1
    flushes_subnormals: bool = False
    checks_arguments: bool = False
    capturable: bool = False
    row_invariant: bool = False
    batch_invariant: bool = False
    uses_triton: bool = False
    backends: tuple[str, ...] = ("cpu", "exec", "cuda", "rocm")

    def rounding(self, point: str, problem: Problem) -> Format | None:
        """The format a value is rounded to at `point`, None where it stays in fp32."""
        return FORMATS[problem.dtype] if point in self.rounds else None

    def arithmetic(self, problem: Problem, *, sharp: bool = False) -> Arithmetic:
        """The arithmetic of the expert products. fp32 at IEEE precision uses FMA on every unit: kappa = 1.

        `sharp`: with the error bound that follows the partial sums.
        """
        running = calibration().sharp_factor if sharp else 0.0
        if problem.dtype == "fp32":
            tf32 = problem.input_precision == "tf32"
            return Arithmetic(self.kappa if tf32 else 1.0, self.splits, TF32_PRODUCT if tf32 else 0.0, running=running)
        smallest_normal = 2.0 ** FORMATS[problem.dtype].min_exponent
        return Arithmetic(self.kappa, self.splits, 0.0, smallest_normal, self.flushes_subnormals, running)

    def supports(self, problem: Problem, kind: Kind) -> bool:
        """Whether the declaration covers those fields of `problem` that a property of this kind reads."""
        return (
            problem.dtype in self.dtypes
            and (not kind.multiplies or problem.dtype != "fp32" or problem.input_precision in self.input_precisions)
            and problem.experts <= self.max_experts
            and (not kind.router or self._supports_router(problem.router))
            and (not kind.ffn or problem.activation in self.activations)
            and (not kind.ffn or self.expert_bias or not problem.expert_bias)
            and (not kind.layout or problem.layout in self.layouts)
            and (not kind.shared or self.shared_expert or not problem.shared_ffn)
        )

    def _supports_router(self, router: Router) -> bool:
        return (
            router.scoring in self.scorings
            and (self.groups or router.groups == 1)
            and (self.selection_bias or not router.selection_bias)
            and (self.logit_bias or not router.logit_bias)
            and (self.expert_scale or not router.expert_scale)
        )


@runtime_checkable
class Implementation(Protocol):
    """One method for each declared stage; `inputs` (generate.Inputs) carries tensors and the problem.

    A method whose stage is not in `declaration.stages` is never called and may be left out.
    """

    declaration: Declaration

    def route(self, inputs: Inputs) -> Routing: ...
    def permute(self, ids: Tensor, num_experts: int) -> Permutation: ...
    def gate_up(self, inputs: Inputs, permutation: Permutation) -> Tensor: ...
    def down(self, inputs: Inputs, h: Tensor, permutation: Permutation) -> Tensor: ...
    def combine(self, inputs: Inputs, y: Tensor, weights: Tensor, permutation: Permutation) -> Tensor: ...
    def forward(self, inputs: Inputs) -> Forward: ...


class ImplementationError(Exception):
    """The implementation raised where it should have returned; the cause is attached."""


class Guarded:
    """An implementation whose exceptions are told apart from the suite's own: they become ImplementationError.

    With `guards`, tensor arguments and what the implementation allocates lie between guard bands, and `report` is told
    of every write outside of them or to an input after each call. `unguarded` is the implementation itself, for
    properties that expect an exception; `unbanded` is this object without bands, for those that look at launches,
    captures, synchronisation or compilation, to which bands would add. A fault of executed code is reported too, and
    raised; that the executor does not know an instruction passes through: it is no fault of the implementation.
    """

    def __init__(
        self,
        implementation: Implementation,
        guards: Guards | None = None,
        report: Callable[[str, str], None] | None = None,
    ) -> None:
        self.unguarded = implementation
        self.declaration = implementation.declaration
        self._guards, self._report = guards, report

    @property
    def unbanded(self) -> Guarded:
        return Guarded(self.unguarded, report=self._report)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.unguarded, name)

        def call(*arguments: object, **named: object) -> object:
            try:
                if self._guards is None:
                    return method(*arguments, **named)
                arguments = tuple(_placed(a, self._guards) for a in arguments)
                with Watched(self._guards):
                    found = method(*arguments, **named)
            except Exception as error:
                self._explain(name, error)
                raise ImplementationError(f"raised {type(error).__name__}: {error}") from error
            for requirement, message in self._guards.faults():
                assert self._report is not None
                self._report(requirement, f"{name}: {message}")
            return found

        return call

    def _explain(self, name: str, error: Exception) -> None:
        if executed.not_modelled(error):
            raise error
        found = executed.judged(error)
        if found is not None and self._report is not None:
            self._report(found[0], f"{name}: {found[1]}")


def _placed(argument: object, guards: Guards) -> object:
    """Tensors handed over beside the Inputs, which have their own bands."""
    if isinstance(argument, Tensor):
        return guards.placed({"an argument": argument})["an argument"]
    if isinstance(argument, Permutation) and argument.native is None:
        return Permutation(**guards.placed({"order": argument[0], "inverse": argument[1], "offsets": argument[2]}))
    return argument


class UnknownImplementation(ValueError):
    """The name is neither shipped nor of the form module:factory."""


@dataclass(frozen=True)
class Shipped:
    """An implementation that comes with the suite."""

    factory: str
    summary: str
    conforms: bool = field(default=True)


SHIPPED = {
    "tritonmoe": Shipped(
        "moe_conformance.implementations.triton_moe:TritonMoE", "the portable Triton kernels of this project"
    ),
    "eager": Shipped("moe_conformance.implementations.eager:Eager", "plain PyTorch, one expert after another"),
    "wrong": Shipped(
        "moe_conformance.implementations.wrong:DropsLastColumn",
        "eager with a planted K-tail defect: it must fail",
        conforms=False,
    ),
}


def load(name: str) -> Implementation:
    """The implementation called `name`: a shipped one, or `module:factory` (a callable without arguments).

    Raises UnknownImplementation, ImportError, or TypeError when the factory returns something without a declaration.
    """
    target = SHIPPED[name].factory if name in SHIPPED else name
    module_name, _, attribute = target.partition(":")
    if not attribute:
        raise UnknownImplementation(f"implementation must be one of {sorted(SHIPPED)} or module:factory, got {name!r}")
    module = importlib.import_module(module_name)
    try:
        factory = getattr(module, attribute)
    except AttributeError:
        raise UnknownImplementation(f"module {module_name!r} has no {attribute!r}") from None
    made: Implementation = factory()
    if not isinstance(getattr(made, "declaration", None), Declaration):
        raise TypeError(f"{name}: the factory returned {type(made).__name__} without a Declaration as .declaration")
    missing = [s for s in made.declaration.stages if not callable(getattr(made, s, None))]
    if missing:
        raise TypeError(f"{name}: declares the stages {missing} but has no such methods")
    return made


def source_digest(implementation: Implementation) -> str:
    """SHA-256 over the sources of the package or file that implements it: one source on every platform, provably.

    An implementation may name the files itself with `source_files()` (paths); else its class's module is taken.
    """
    files = getattr(implementation, "source_files", None)
    if files is not None:
        paths = sorted(Path(p) for p in files())
    else:
        module = importlib.import_module(type(implementation).__module__)
        paths = [Path(module.__file__)] if module.__file__ else []
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def package_files(package_dir: Path) -> list[Path]:
    """Every source and data file of a package, for `source_files`."""
    return [p for p in sorted(package_dir.rglob("*")) if p.suffix in (".py", ".toml") and "__pycache__" not in p.parts]
