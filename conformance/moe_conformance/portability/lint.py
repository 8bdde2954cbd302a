"""The portability lint: what kernels and launchers may be written with, checked on the syntax tree.

No import of what is judged, no torch, no Triton: the rules are data (data/kernel_lint.toml), and so are the planted
violations by which the lint judges itself (data/kernel_lint_planted.toml).
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Kind = Literal["device", "host", "data"]
DATA = Path(__file__).parent.parent / "data"
_TRITON = "triton"
_LANGUAGE = "triton.language"


@dataclass(frozen=True, order=True)
class Finding:
    """One violation. rule: vendor, assembly, library, warp, environment, primitive, option or syntax."""

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


@dataclass(frozen=True)
class Rules:
    """data/kernel_lint.toml."""

    device: dict[str, Any]
    host: dict[str, Any]
    words: dict[str, Any]

    def rule_of(self, name: str) -> str | None:
        """The rule that a word of an identifier or a string breaks, None for a harmless one."""
        for rule in ("vendor", "assembly", "environment"):
            if any(_pattern(word).search(name) for word in self.words[rule]):
                return rule
        return None


@cache
def rules() -> Rules:
    return Rules(**tomllib.loads((DATA / "kernel_lint.toml").read_text(encoding="utf-8")))


@cache
def _pattern(word: str) -> re.Pattern[str]:
    # Between letters and digits of other words; an underscore parts words.
    return re.compile(rf"(?<![a-z0-9])(?:{word})(?![a-z0-9])", re.IGNORECASE)


@cache
def _whole(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{word})", re.IGNORECASE)


def _is_any(name: str, words: Iterable[str]) -> bool:
    return any(_whole(word).fullmatch(name) for word in words)


class _Visitor(ast.NodeVisitor):
    """One file. `aliases`: what the file's names stand for, by its imports."""

    def __init__(self, path: str, kind: Kind) -> None:
        self.path, self.is_device = path, kind == "device"
        self.rules = rules()
        self.found: list[Finding] = []
        self.aliases: dict[str, str] = {}
        self._harmless: set[int] = set()  # nodes that an enclosing node has explained

    def report(self, node: ast.AST, rule: str, message: str) -> None:
        self.found.append(Finding(self.path, getattr(node, "lineno", 0), rule, message))

    # -- imports ---------------------------------------------------------

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            self._module(node, each.name)
            self.aliases[each.asname or each.name.partition(".")[0]] = (
                each.name if each.asname else each.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level:
            if self.is_device and not (node.module or "").endswith("_kernel"):
                self.report(node, "library", f"device code imports {node.module or '.'}, which is no *_kernel module")
            return
        module = node.module or ""
        for each in node.names:
            name = f"{module}.{each.name}"
            self.aliases[each.asname or each.name] = name
            if each.name == "*":
                self.report(node, "primitive", f"from {module} import *: names that nobody can check")
            elif name == _LANGUAGE or (module == _LANGUAGE and each.name != "extra"):
                self._path(node, name)
            elif module == _TRITON:
                self._module(node, name if name in self._imports else _TRITON)
                self._path(node, name)
            else:
                self._module(node, module)

    @property
    def _imports(self) -> list[str]:
        allowed: list[str] = (self.rules.device if self.is_device else self.rules.host)["imports"]
        return allowed

    def _module(self, node: ast.AST, name: str) -> None:
        if name == "os" or name.startswith("os."):
            self.report(node, "environment", "kernels and launchers have no business with the operating system")
        elif name not in self._imports and not (not self.is_device and name.partition(".")[0] in ("torch", _TRITON)):
            self.report(node, "library", f"import of {name}, which is not allowed in {self._where}")
        elif rule := self.rules.rule_of(name.replace("torch.cuda", "")):
            self.report(node, rule, f"import of {name}")

    @property
    def _where(self) -> str:
        return "device code" if self.is_device else "host code"

    # -- names and attributes --------------------------------------------

    def _dotted(self, node: ast.AST) -> str | None:
        """The full name of an attribute chain that starts at an import, None for any other expression."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.aliases:
            return None
        return ".".join([self.aliases[node.id], *reversed(parts)])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        dotted = self._dotted(node)
        if dotted is not None:
            self._path(node, dotted)
            return
        if self.is_device and node.attr not in self.rules.device["attributes"]:
            self.report(node, "primitive", f".{node.attr} is not among the attributes that device code may use")
        elif not self.is_device:
            self._host_attribute(node, node.attr)
        self.visit(node.value)

    def _path(self, node: ast.AST, dotted: str) -> None:
        """A whole dotted name that starts at an import."""
        if self.is_device:
            self._device_path(node, dotted)
            return
        is_read = isinstance(getattr(node, "ctx", None), ast.Load)
        if is_read and dotted in self.rules.host["switches_read"]:
            return
        # torch.cuda is what torch calls the accelerator's module on every vendor's card.
        for part in dotted.replace("torch.cuda", "torch", 1).split("."):
            self._host_attribute(node, part)

    def _device_path(self, node: ast.AST, dotted: str) -> None:
        if dotted in (_TRITON, _LANGUAGE):
            return
        for prefix, allowed in ((_LANGUAGE, self.rules.device["primitives"]), (_TRITON, self.rules.device["triton"])):
            if dotted.startswith(prefix + "."):
                rest = dotted.removeprefix(prefix + ".").split(".")
                # tl.float32.to would be an attribute of a value.
                if rest[0] in allowed and all(part in self.rules.device["attributes"] for part in rest[1:]):
                    return
                rule = self.rules.rule_of(dotted)
                if rule is None or rule == "vendor":
                    rule = "library" if "extra" in rest else "primitive"
                self.report(node, rule, f"{dotted} is not among the primitives that kernels may use")
                return

    def _host_attribute(self, node: ast.AST, name: str) -> None:
        if name in self.rules.host["vendor_queries"]:
            self.report(node, "vendor", f".{name} tells whose card this is")
        elif rule := self.rules.rule_of(name):
            self.report(node, rule, f"the name {name}")

    def visit_Name(self, node: ast.Name) -> None:
        if rule := self.rules.rule_of(node.id):
            self.report(node, rule, f"the name {node.id}")
        if isinstance(node.ctx, ast.Load) and node.id in self.aliases:
            self._path(node, self.aliases[node.id])

    def visit_arg(self, node: ast.arg) -> None:
        if rule := self.rules.rule_of(node.arg):
            self.report(node, rule, f"the parameter {node.arg}")
        self.generic_visit(node)

    # -- strings ---------------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> None:
        if not (
            isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        ):  # a docstring says anything
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        is_text = isinstance(node.value, str) and id(node) not in self._harmless
        if is_text and not self.is_device and node.value in self.rules.host["other_properties"]:
            self.report(node, "vendor", f"the string {node.value!r}: a property by which cards are told apart")
        elif is_text and len(str(node.value).split()) < 3 and (rule := self.rules.rule_of(str(node.value))):
            self.report(node, rule, f"the string {node.value!r}")

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        # device.type == "cuda" asks whether there is an accelerator: torch says so on every vendor's card.
        if any(isinstance(side, ast.Attribute) and side.attr == "type" for side in sides):
            self._harmless |= {id(side) for side in sides if isinstance(side, ast.Constant) and side.value == "cuda"}
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        called = node.value
        if isinstance(called, ast.Call) and isinstance(called.func, ast.Attribute):
            # A name passed on is as good as the strings of the package, which are looked at one by one.
            is_limit = isinstance(node.slice, ast.Name) or (
                isinstance(node.slice, ast.Constant) and node.slice.value in self.rules.host["device_limits"]
            )
            if called.func.attr == "get_device_properties" and not is_limit:
                text = ast.unparse(node.slice)
                self.report(node, "vendor", f"device property {text} is not among the limits that may be read")
        self.generic_visit(node)

    # -- calls, options, widths ------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        allowed = self.rules.device["builtins"]
        if self.is_device and isinstance(function, ast.Name) and function.id in _BUILTINS - set(allowed):
            self.report(node, "primitive", f"{function.id}() in device code")
        for keyword in node.keywords:
            name = keyword.arg or ""
            if name in self.rules.host["vendor_options"]:
                self.report(keyword.value, "option", f"{name} is an option of one vendor's compiler")
            elif rule := self.rules.rule_of(name):
                self.report(keyword.value, rule, f"the argument {name}")
            self._width(keyword.value, name, keyword.value)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._width(node, target.id, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name) and node.value is not None:
            self._width(node, node.target.id, node.value)
        self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> None:
        positional = [*node.posonlyargs, *node.args]
        defaults: list[tuple[ast.arg, ast.expr | None]] = [
            *zip(positional[len(positional) - len(node.defaults) :], node.defaults, strict=True),
            *zip(node.kwonlyargs, node.kw_defaults, strict=True),
        ]
        for argument, default in defaults:
            if default is not None:
                self._width(default, argument.arg, default)
        self.generic_visit(node)

    def _width(self, node: ast.AST, name: str, value: ast.expr) -> None:
        is_number = isinstance(value, ast.Constant) and value.value in self.rules.words["warp_numbers"]
        if is_number and _is_any(name, self.rules.words["warp"]):
            self.report(node, "warp", f"{name} = {ast.unparse(value)}: the width of a warp is the device's")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        for side, other in ((node.left, node.right), (node.right, node.left)):
            number = side.value if isinstance(side, ast.Constant) else None
            name = other.id if isinstance(other, ast.Name) else other.attr if isinstance(other, ast.Attribute) else ""
            if number in self.rules.words["warp_numbers"] and _is_any(name, self.rules.words["warp_factors"]):
                self.report(node, "warp", f"{ast.unparse(node)}: the width of a warp is the device's")
        self.generic_visit(node)


_BUILTINS = frozenset(dir(builtins))


def _data_findings(text: str, path: str) -> Iterator[Finding]:
    """Keys and strings of a TOML file."""

    def walk(value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in rules().host["vendor_options"]:
                    yield "option", f"{key} is an option of one vendor's compiler"
                yield from walk(key)
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)
        elif isinstance(value, str) and (rule := rules().rule_of(value)):
            yield rule, f"{value!r} in a table of the kernels"

    for rule, message in walk(tomllib.loads(text)):
        yield Finding(path, 0, rule, message)


def findings(text: str, path: str, kind: Kind) -> list[Finding]:
    """What is wrong with one file, by line."""
    if kind == "data":
        return sorted(_data_findings(text, path))
    visitor = _Visitor(path, kind)
    try:
        visitor.visit(ast.parse(text))
    except SyntaxError as error:
        return [Finding(path, error.lineno or 0, "syntax", str(error))]
    return sorted(set(visitor.found))


def kind_of(path: Path) -> Kind:
    if path.suffix == ".toml":
        return "data"
    return "device" if path.stem.endswith("_kernel") else "host"


def sources(package: Path) -> list[Path]:
    """The files of a kernel package that are judged. Raises FileNotFoundError where there is no device code."""
    found = [p for p in sorted(package.rglob("*")) if p.suffix in (".py", ".toml") and "__pycache__" not in p.parts]
    if not any(kind_of(path) == "device" for path in found):
        raise FileNotFoundError(f"{package} holds no *_kernel.py: nothing to judge")
    return found


def lint(package: Path) -> list[Finding]:
    """What is wrong with a kernel package. Raises FileNotFoundError where there is none."""
    made: list[Finding] = []
    for path in sources(package):
        made += findings(path.read_text(encoding="utf-8"), str(path.relative_to(package.parent)), kind_of(path))
    return made


def source_digest(package: Path) -> str:
    """SHA-256 of a kernel package by the rule of `implementation.source_digest`: what its Records say."""
    digest = hashlib.sha256()
    for path in sources(package):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class Planted:
    """An entry of kernel_lint_planted.toml."""

    rule: str
    kind: Kind
    code: str


def planted() -> list[Planted]:
    read = tomllib.loads((DATA / "kernel_lint_planted.toml").read_text(encoding="utf-8"))
    return [Planted(**entry) for entry in read["planted"]]


def self_test() -> list[str]:
    """Planted violations that were not seen, and harmless code that was refused; empty where the lint is sound."""
    wrong = []
    for each in planted():
        seen = {finding.rule for finding in findings(each.code, "planted", each.kind)}
        if each.rule and each.rule not in seen:
            wrong.append(f"a planted violation of {each.rule} was not seen ({sorted(seen)}):\n{each.code}")
        elif not each.rule and seen:
            wrong.append(f"harmless code was refused ({sorted(seen)}):\n{each.code}")
    return wrong
