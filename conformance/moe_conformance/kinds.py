"""Kinds of problem: which part of a Problem a property reads, and whether its problems are drawn or fixed."""

from __future__ import annotations

from dataclasses import dataclass

from .integers import ACTIVATIONS


@dataclass(frozen=True)
class Kind:
    """router, ffn, layout, shared: the fields of a Problem that matter to this kind of property. drawn: Hypothesis
    draws more of them; otherwise all come from data/landmarks.toml or data/models.toml. large: gigabytes of tensors;
    far: tensors that lie gigabytes apart. activations: those that it can be drawn with, all where empty."""

    router: bool = False
    ffn: bool = False
    layout: bool = False
    shared: bool = False
    drawn: bool = True
    large: bool = False
    far: bool = False
    activations: tuple[str, ...] = ()

    @property
    def heavy(self) -> bool:
        """Whether one problem takes gigabytes, if only of address space: one at a time on a device."""
        return self.large or self.far

    @property
    def multiplies(self) -> bool:
        """Whether matrix products are taken, at the problem's input precision."""
        return self.router or self.ffn

    @property
    def reads_hidden(self) -> bool:
        """Whether the hidden size matters at all."""
        return self.router or self.ffn or self.shared


KINDS = {
    "route": Kind(router=True, layout=True),
    "permute": Kind(),
    "experts": Kind(ffn=True, layout=True),
    "combine": Kind(shared=True),
    "forward": Kind(router=True, ffn=True, layout=True, shared=True),
    "small_forward": Kind(router=True, ffn=True, layout=True),
    "precision": Kind(router=True, ffn=True, layout=True),
    "exact": Kind(router=True, ffn=True, layout=True, activations=ACTIVATIONS),
    "models": Kind(router=True, ffn=True, layout=True, shared=True, drawn=False, large=True),
    "far": Kind(ffn=True, drawn=False, far=True),
    "many_rows": Kind(drawn=False, large=True),
    "bad_input": Kind(router=True, ffn=True, drawn=False),
    "compile_keys": Kind(router=True, ffn=True, drawn=False),
}
