"""A small reader of the vendor's pseudo code: straight assignments of expressions, evaluated on bit patterns.

It knows the C-like types by which the manuals write values (u32, i16, f64, slices, casts, concatenation). Anything
else, a branch, a loop, a function that is not listed, is refused with `Unreadable`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .drawn import pattern, value
from .exact import fma, rounded


class Unreadable(Exception):
    """Pseudo code that is not of the simple form."""


@dataclass(frozen=True)
class Value:
    """kind: "u", "i" or "f"; size in bits; number: an int, or a float for "f"."""

    kind: str
    size: int
    number: Any

    def bits(self) -> int:
        if self.kind == "f":
            return pattern(f"f{self.size}", self.number)
        return int(self.number) & ((1 << self.size) - 1)

    def taken(self, kind: str, size: int) -> Value:
        """The same bits as another kind."""
        bits = self.bits() & ((1 << size) - 1)
        if kind == "f":
            return Value("f", size, value(f"f{size}", bits))
        return integer(kind, size, bits)


def integer(kind: str, size: int, number: int) -> Value:
    number &= (1 << size) - 1
    return Value(kind, size, number - (1 << size) if kind == "i" and number >> (size - 1) else number)


_TOKEN = re.compile(
    r"\s*(?:(?P<cast>\d+'[UIFB](?=\())|(?P<sized>\d+'(?:0x[0-9a-f]+|\d+\.\d+|\d+)U?)"
    r"|(?P<float>\d+\.\d+F?)|(?P<int>(?:0x[0-9a-f]+|\d+)(?:U?LL|U)?)"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<op><<|>>|<>|<=|>=|==|&&|\|\||\*\*|[-+*/&|^~!?:<>()\[\]{},.=]))"
)
_LEVELS = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "<>"),
    ("<", ">", "<=", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/"),
)
_KIND = re.compile(r"^([uifb])(\d+)$")


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unreadable(text[at : at + 20])
        found.append((str(match.lastgroup), match[match.lastgroup or 0]))
        at = match.end()
    return found


Evaluate = Callable[[dict[str, Value]], Value]


def _float_result(size: int, number: float) -> Value:
    return Value("f", size, number)


def _sum(a: Value, b: Value, sign: int) -> Value:
    one, kind = np.array([1.0]), f"f{a.size}"
    if a.size == 64:
        return _float_result(64, a.number + sign * b.number)
    left, right = np.array([a.number]), np.array([sign * b.number])
    return _float_result(a.size, float(fma(left, one, right, kind)[0]))


def _product(a: Value, b: Value) -> Value:
    if a.size == 64:
        return _float_result(64, a.number * b.number)
    negative = (math.copysign(1, a.number) < 0) != (math.copysign(1, b.number) < 0)
    zero = np.array([-0.0 if negative else 0.0])
    return _float_result(a.size, float(fma(np.array([a.number]), np.array([b.number]), zero, f"f{a.size}")[0]))


def _quotient(a: Value, b: Value) -> Value:
    x, y = a.number, b.number
    if any(map(math.isnan, (x, y))) or not math.isfinite(x) or x == 0:
        raise Unreadable("a quotient of this numerator")
    if y == 0 or math.isinf(y):
        return _float_result(a.size, math.copysign(math.inf if y == 0 else 0.0, x) * math.copysign(1, y))
    exact = Fraction(x) / Fraction(y)
    if a.size == 64:
        return _float_result(64, x / y)
    return _float_result(a.size, math.copysign(rounded(abs(exact), f"f{a.size}"), exact))


def _binary(op: str, a: Value, b: Value) -> Value:
    if op in ("==", "<>", "<", ">", "<=", ">=", "&&", "||"):
        x, y = a.number, b.number
        # <> of floats is the ordered "less or greater".
        table = {"==": x == y, "<>": x < y or x > y, "<": x < y, ">": x > y, "<=": x <= y, ">=": x >= y}
        table |= {"&&": bool(x) and bool(y), "||": bool(x) or bool(y)}
        return Value("u", 1, int(table[op]))
    if op in ("<<", ">>"):
        if b.number >= 128:
            raise Unreadable("a shift beyond all widths")
        number = a.number << b.number if op == "<<" else a.number >> b.number
        return integer(a.kind, max(a.size, 32), number)
    if "f" in (a.kind, b.kind):
        if a.kind != b.kind or a.size != b.size:
            raise Unreadable("floats of two kinds")
        if op in "+-":
            return _sum(a, b, 1 if op == "+" else -1)
        if op in "*/":
            return (_product if op == "*" else _quotient)(a, b)
        raise Unreadable(op)
    size = max(a.size, b.size)
    kind = "u" if "u" in (a.kind, b.kind) else "i"
    numbers = {
        "+": lambda: a.number + b.number,
        "-": lambda: a.number - b.number,
        "*": lambda: a.number * b.number,
        "&": lambda: a.bits() & b.bits(),
        "|": lambda: a.bits() | b.bits(),
        "^": lambda: a.bits() ^ b.bits(),
    }
    if op not in numbers:
        raise Unreadable(op)
    return integer(kind, size, numbers[op]())


def _to_integer(kind: str, size: int) -> Callable[[Value], Value]:
    low, high = (0, (1 << size) - 1) if kind == "u" else (-(1 << size - 1), (1 << size - 1) - 1)

    def convert(x: Value) -> Value:
        if math.isnan(x.number):
            return Value(kind, size, 0)
        return Value(kind, size, low if x.number < low else high if x.number > high else math.trunc(x.number))

    return convert


def _to_float(size: int) -> Callable[[Value], Value]:
    def convert(x: Value) -> Value:
        number = x.number
        if x.kind == "f" and (not math.isfinite(number) or number == 0):
            return Value("f", size, float(number))
        exact = Fraction(number)
        if size == 64:
            return Value("f", 64, float(exact))
        return Value("f", size, rounded(exact, f"f{size}"))

    return convert


def _whole(function: Callable[[float], int]) -> Callable[[Value], Value]:
    def apply(x: Value) -> Value:
        number = x.number
        if not math.isfinite(number):
            return x
        return Value("f", x.size, math.copysign(float(function(number)), number))

    return apply


def _fma(a: Value, b: Value, c: Value) -> Value:
    if a.size == 64:
        x, y, z = a.number, b.number, c.number
        if not all(map(math.isfinite, (x, y, z))) or x * y == 0:
            return Value("f", 64, x * y + z)
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        try:
            return Value("f", 64, float(exact))
        except OverflowError:
            return Value("f", 64, math.inf if exact > 0 else -math.inf)
    kind = f"f{a.size}"
    return Value("f", a.size, float(fma(*(np.array([x.number]) for x in (a, b, c)), kind)[0]))


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "fma": _fma,
    "trunc": _whole(math.trunc),
    "floor": _whole(math.floor),
    "isNAN": lambda x: Value("u", 1, int(math.isnan(x.number))),
    "signext": lambda x: Value("i", 64, x.number),
    "signext_from_bit": lambda x, n: Value("i", 64, integer("i", n.number, x.bits()).number if n.number else 0),
    "abs": lambda x: Value(x.kind, x.size, abs(x.number)),
}
for _size in (16, 32):
    for _sign in "ui":
        _FUNCTIONS[f"v_min_{_sign}{_size}"] = lambda a, b: min(a, b, key=lambda x: x.number)
        _FUNCTIONS[f"v_max_{_sign}{_size}"] = lambda a, b: max(a, b, key=lambda x: x.number)
for _from in ("f16", "f32", "f64"):
    for _sign in "ui":
        for _size in (16, 32):
            _FUNCTIONS[f"{_from}_to_{_sign}{_size}"] = _to_integer(_sign, _size)
    for _size in (16, 32, 64):
        _FUNCTIONS[f"{_from}_to_f{_size}"] = _to_float(_size)
for _sign in "ui":
    for _size in (16, 32):
        for _float in (16, 32, 64):
            _FUNCTIONS[f"{_sign}{_size}_to_f{_float}"] = _to_float(_float)


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens, self.at = _tokens(text), 0

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        found = self.peek()
        if not found or (wanted and found != wanted):
            raise Unreadable(f"{found!r} where {wanted!r} is expected")
        self.at += 1
        return found

    def whole(self) -> Evaluate:
        found = self.choice()
        if self.peek():
            raise Unreadable(self.peek())
        return found

    def choice(self) -> Evaluate:
        test = self.level(0)
        if self.peek() != "?":
            return test
        self.take("?")
        yes = self.choice()
        self.take(":")
        no = self.choice()
        return lambda state: (yes if test(state).number else no)(state)

    def level(self, depth: int) -> Evaluate:
        if depth == len(_LEVELS):
            return self.unary()
        left = self.level(depth + 1)
        while self.peek() in _LEVELS[depth]:
            op = self.take()
            left = self.joined(op, left, self.level(depth + 1))
        return left

    @staticmethod
    def joined(op: str, left: Evaluate, right: Evaluate) -> Evaluate:
        return lambda state: _binary(op, left(state), right(state))

    def unary(self) -> Evaluate:
        op = self.peek()
        if op == "-":
            self.take()
            inner = self.unary()
            return lambda state: self.negated(inner(state))
        if op == "~":
            self.take()
            inner = self.unary()
            return lambda state: (x := inner(state)) and integer(x.kind, x.size, ~x.number)
        if op == "!":
            self.take()
            inner = self.unary()
            return lambda state: Value("u", 1, int(not inner(state).number))
        return self.behind(self.primary())

    @staticmethod
    def negated(x: Value) -> Value:
        return Value("f", x.size, -x.number) if x.kind == "f" else integer(x.kind, x.size, -x.number)

    def behind(self, found: Evaluate) -> Evaluate:
        while self.peek() in (".", "["):
            if self.take() == ".":
                kind = _KIND.match(self.take())
                if kind is None:
                    raise Unreadable("a member")
                letter, size = kind[1].replace("b", "u"), int(kind[2])
                found = self.member(found, letter, size)
            else:
                first = self.choice()
                second = None
                if self.peek() == ":":
                    self.take()
                    second = self.choice()
                self.take("]")
                found = self.slice(found, first, second)
        return found

    @staticmethod
    def member(found: Evaluate, letter: str, size: int) -> Evaluate:
        return lambda state: found(state).taken(letter, size)

    @staticmethod
    def slice(found: Evaluate, first: Evaluate, second: Evaluate | None) -> Evaluate:
        def evaluate(state: dict[str, Value]) -> Value:
            bits, high = found(state).bits(), first(state).number
            low = high if second is None else second(state).number
            size = abs(high - low) + 1
            part = bits >> min(high, low) & ((1 << size) - 1)
            if high < low:
                part = int(format(part, f"0{size}b")[::-1], 2)
            return Value("u", size, part)

        return evaluate

    def primary(self) -> Evaluate:
        group, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        self.at += 1
        if text == "(":
            inner = self.choice()
            self.take(")")
            return inner
        if text == "{":
            return self.concatenated()
        if group == "cast":
            return self.cast(text)
        if group == "name":
            return self.name(text)
        return self.constant(group, text)

    def concatenated(self) -> Evaluate:
        parts = [self.choice()]
        while self.peek() == ",":
            self.take()
            parts.append(self.choice())
        self.take("}")

        def evaluate(state: dict[str, Value]) -> Value:
            total = size = 0
            for part in (p(state) for p in parts):
                total, size = total << part.size | part.bits(), size + part.size
            return Value("u", size, total)

        return evaluate

    def cast(self, text: str) -> Evaluate:
        size, letter = text.split("'")
        self.take("(")
        inner = self.choice()
        self.take(")")
        if letter == "F":
            convert = _to_float(int(size))
            return lambda state: convert(inner(state))
        kind = "i" if letter == "I" else "u"

        def evaluate(state: dict[str, Value]) -> Value:
            x = inner(state)
            if x.kind == "f":
                raise Unreadable("a float cast to an integer")
            return integer(kind, int(size), x.number)

        return evaluate

    def name(self, text: str) -> Evaluate:
        if self.peek() == "(":
            function = _FUNCTIONS.get(text)
            if function is None:
                raise Unreadable(f"function {text}")
            self.take()
            given = [self.choice()]
            while self.peek() == ",":
                self.take()
                given.append(self.choice())
            self.take(")")
            return lambda state: function(*(g(state) for g in given))
        if text not in ("S0", "S1", "S2", "D0", "SCC", "tmp"):
            raise Unreadable(text)

        def evaluate(state: dict[str, Value]) -> Value:
            if text not in state:
                raise Unreadable(text)
            return state[text]

        return evaluate

    @staticmethod
    def constant(group: str, text: str) -> Evaluate:
        if group == "float":
            number = Value("f", 32 if text.endswith("F") else 64, float(text.rstrip("F")))
        elif group == "sized":
            size, digits = text.rstrip("U").split("'")
            number = Value("f", int(size), float(digits)) if "." in digits else Value("u", int(size), int(digits, 0))
        elif group == "int":
            wide = 64 if "LL" in text else 32
            number = Value("u" if "U" in text or text.startswith("0x") else "i", wide, int(text.rstrip("UL"), 0))
        else:
            raise Unreadable(text)
        return lambda state: number


_ASSIGNED = re.compile(r"^(D0|SCC|tmp)(?:\.([uifb]\d+))?(\[laneId\]|\[\d+ : \d+\])?\s*=\s*(?!=)(.*)$", re.S)


@dataclass(frozen=True)
class Code:
    """Assignments in order: name, the kind it is stored as, and the expression."""

    steps: tuple[tuple[str, str, Evaluate], ...]

    def run(self, state: dict[str, Value]) -> dict[str, Value]:
        state = dict(state)
        for name, kind, expression in self.steps:
            found = expression(state)
            if kind:
                letter, size = kind[0].replace("b", "u"), int(kind[1:])
                if (letter == "f") != (found.kind == "f"):
                    found = found.taken(letter, size)
                elif letter == "f":
                    found = Value("f", size, found.number)
                else:
                    found = integer(letter, size, found.number)
            state[name] = found
        return state


def read(text: str) -> Code:
    """Raises Unreadable."""
    steps = []
    text = "\n".join(line for line in text.splitlines() if not line.strip().startswith("//"))
    for statement in filter(None, (part.strip() for part in text.split(";"))):
        match = _ASSIGNED.match(statement)
        if match is None:
            raise Unreadable(statement)
        name, kind, part, expression = match.groups()
        if part == "[laneId]":
            kind = "u1"
        elif part not in (None, "[31 : 0]", "[63 : 0]"):
            raise Unreadable(statement)
        steps.append((name, kind or "", _Parser(expression).whole()))
    return Code(tuple(steps))
