# SPDX-License-Identifier: Apache-2.0
"""Random well-typed scripts with a plain Python evaluation of the same tree beside each.

Every construct is made twice from the same choice: as text of the language and as a Python
closure. A script is a ``begin`` probe that sets maps to random numbers (so that nothing is known
when compiling) and one ``begin`` probe a program, each of which prints lines ``NUMBER VALUES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

MASK = (1 << 64) - 1
INPUTS = 8
EDGES = (0, 1, -1, 2, 7, 255, 256, -128, 65535, 2**31 - 1, -(2**31), 2**40, 2**63 - 1, -(2**63))
WORDS = ("", "a", "abc", "abd", "kcap", "a longer text of thirty-three chars")
#: Up to which value a loop counts, and how deep loops may nest: with bpf_loop and
#: bpf_for_each_map_elem, and without, where the verifier walks through every round.
LOOPS, PLAIN_LOOPS = (5, 2), (3, 1)
TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Return(Exception):
    pass


@dataclass
class State:
    """What a program sees while it is evaluated.

    :ivar variables: scratch variables; names are unique in a program.
    :ivar maps: all maps of the script.
    :ivar printed: its lines.
    """

    maps: dict[str, dict[Any, Any]]
    variables: dict[str, Any] = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Expr:
    """An expression: its text, its type ('i' int64, 'u' uint64, 'b' bool, 's' string) and value."""

    text: str
    type: str
    value: Callable[[State], Any]


@dataclass(frozen=True)
class Stmt:
    """A statement: its text, and what it does."""

    text: str
    do: Callable[[State], None]


def masked(operand: Expr, type_: str, operator: str, number: int) -> Expr:
    """An operand that has some bits set or cleared."""
    bits = {"|": int.__or__, "&": int.__and__}[operator]
    text = f"({operand.text} {operator} {number})"
    return Expr(text, type_, lambda s: bits(operand.value(s), number))


def fit(value: int, bits: int, is_signed: bool) -> int:
    """A number's low bits."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if is_signed and value >> (bits - 1) else value


def fit64(type_: str, value: int) -> int:
    """A number as an 'i' or a 'u'."""
    return fit(value, 64, type_ == "i")


def divide(left: int, right: int) -> int:
    """C's division; 1 for a divisor of 0, as the language has it."""
    if not right:
        return 1
    quotient = abs(left) // abs(right)
    return -quotient if (left < 0) != (right < 0) else quotient


def remainder(left: int, right: int) -> int:
    """C's remainder; 1 for a divisor of 0, as the language has it."""
    return left - divide(left, right) * right if right else 1


ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": divide,
    "%": remainder,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
CAST = {"i": "(int64)", "u": "(uint64)"}


class Generator:
    """Makes one program.

    :param random: where the choices come from.
    :param number: the program's number: its maps are called after it.
    :param helpers: use what takes BPF helpers that loop.
    """

    def __init__(self, random: Random, number: int, *, helpers: bool) -> None:
        self.random = random
        self.number = number
        self.helpers = helpers
        self.rounds, self.nesting = LOOPS if helpers else PLAIN_LOOPS
        self._names = 0
        #: Variables in scope: (name, type) with the type as in :class:`Expr`; strings are 's'.
        self._scopes: list[list[tuple[str, str]]] = [[]]
        self._fixed: set[str] = set()
        self._loops = 0
        #: Maps that may be used, until a loop goes over one.
        self._maps = [f"@m{number}", f"@s{number}"]

    # --- expressions ---

    def number_of(self, type_: str, depth: int) -> Expr:
        """An expression of type 'i' or 'u'."""
        if depth <= 0:
            return self._leaf(type_)
        makers = [self._arithmetic, self._arithmetic, self._shift, self._choice, self._narrow]
        makers += [self._negated, self._block, self._tuple_element, self._length, self._leaf_of]
        make = self.random.choice(makers)
        return make(type_, depth - 1)

    def _leaf_of(self, type_: str, depth: int) -> Expr:
        return self._leaf(type_)

    def _leaf(self, type_: str) -> Expr:
        kind = self.random.randrange(4)
        if kind == 0:
            value = self.random.choice((*EDGES, self.random.randrange(-(2**63), 2**63)))
            if value == -(2**63):  # its digits alone are no int64
                value += 1
            return Expr(f"{CAST[type_]}({value})", type_, lambda s: fit64(type_, value))
        known = [v for scope in self._scopes for v in scope if v[1] in "iu"]
        if kind == 1 and known:
            name, _ = self.random.choice(known)
            return Expr(f"{CAST[type_]}{name}", type_, lambda s: fit64(type_, s.variables[name]))
        if kind == 2:
            name, key = self._maps[0], self.random.randrange(INPUTS)
            return Expr(
                f"{CAST[type_]}{name}[{key}]",
                type_,
                lambda s: fit64(type_, s.maps[name].get(key, 0)),
            )
        key = self.random.randrange(INPUTS)
        return Expr(f"{CAST[type_]}@in[{key}]", type_, lambda s: fit64(type_, s.maps["@in"][key]))

    def _arithmetic(self, type_: str, depth: int) -> Expr:
        op = self.random.choice(tuple(ARITHMETIC))
        left, right = self.number_of(type_, depth), self.number_of(type_, depth)

        def value(s: State) -> int:
            a, b = left.value(s), right.value(s)
            return fit64(type_, ARITHMETIC[op](a, b))

        text = f"{left.text} {op} {right.text}"
        if op in "/%":  # the smallest number divided by -1 is undefined in C and in LLVM
            right = masked(right, type_, "|", 6)
            text = f"{left.text} {op} {right.text}"
            if type_ == "i":
                right = masked(right, "i", "&", 255)
                text = f"{left.text} {op} {right.text}"
        return Expr(f"{CAST[type_]}({text})", type_, value)

    def _shift(self, type_: str, depth: int) -> Expr:
        op = self.random.choice(("<<", ">>"))
        left, by = self.number_of(type_, depth), self.number_of("u", depth - 1)

        def value(s: State) -> int:
            a, b = left.value(s), by.value(s) & 63
            return fit64(type_, a << b if op == "<<" else a >> b)

        return Expr(f"{CAST[type_]}({left.text} {op} ({by.text} & 63))", type_, value)

    def _choice(self, type_: str, depth: int) -> Expr:
        test = self.condition(depth)
        then, other = self.number_of(type_, depth), self.number_of(type_, depth)
        return Expr(
            f"({test.text} ? {then.text} : {other.text})",
            type_,
            lambda s: then.value(s) if test.value(s) else other.value(s),
        )

    def _narrow(self, type_: str, depth: int) -> Expr:
        name = self.random.choice(TYPES)
        bits, is_signed = int(name.lstrip("uint")), name[0] == "i"
        inner = self.number_of(self.random.choice("iu"), depth)
        return Expr(
            f"{CAST[type_]}({name})({inner.text})",
            type_,
            lambda s: fit64(type_, fit(inner.value(s), bits, is_signed)),
        )

    def _negated(self, type_: str, depth: int) -> Expr:
        op, inner = self.random.choice("-~"), self.number_of(type_, depth)
        return Expr(
            f"{CAST[type_]}({op}({inner.text}))",
            type_,
            lambda s: fit64(type_, -inner.value(s) if op == "-" else ~inner.value(s)),
        )

    def _block(self, type_: str, depth: int) -> Expr:
        name = self._new_name()
        first = self.number_of(type_, depth)
        self._scopes.append([(name, type_)])
        then = self.number_of(type_, depth)
        self._scopes.pop()

        def value(s: State) -> Any:
            s.variables[name] = first.value(s)
            return then.value(s)

        return Expr(f"({{ let {name} = {first.text}; {then.text} }})", type_, value)

    def _tuple_element(self, type_: str, depth: int) -> Expr:
        inner, word = self.number_of(type_, depth), self.string(depth - 1)
        if self.random.random() < 0.5:
            return Expr(f"({inner.text}, {word.text}).0", type_, inner.value)
        return Expr(f"(label={word.text}, size={inner.text}).size", type_, inner.value)

    def _length(self, type_: str, depth: int) -> Expr:
        word = self.string(depth - 1)
        return Expr(f"{CAST[type_]}strlen({word.text})", type_, lambda s: len(word.value(s)))

    def string(self, depth: int) -> Expr:
        """An expression of type string."""
        kind = self.random.randrange(4)
        if kind == 0:
            name, key = self._maps[1], self.random.randrange(3)
            return Expr(f"{name}[{key}]", "s", lambda s: s.maps[name].get(key, ""))
        known = [v for scope in self._scopes for v in scope if v[1] == "s"]
        if kind == 1 and known:
            found, _ = self.random.choice(known)
            return Expr(found, "s", lambda s: s.variables[found])
        if kind == 2 and depth > 0:
            test, then, other = self.condition(depth - 1), self.string(0), self.string(0)
            return Expr(
                f"({test.text} ? {then.text} : {other.text})",
                "s",
                lambda s: then.value(s) if test.value(s) else other.value(s),
            )
        word = self.random.choice(WORDS)
        return Expr(f'"{word}"', "s", lambda s: word)

    def condition(self, depth: int) -> Expr:
        """An expression of type bool."""
        kind = self.random.randrange(6 if depth > 0 else 2)
        if kind == 2:
            left, right = self.string(depth - 1), self.string(depth - 1)
            op = self.random.choice(("==", "!="))
            return Expr(
                f"({left.text} {op} {right.text})",
                "b",
                lambda s: COMPARISONS[op](left.value(s), right.value(s)),
            )
        if kind == 3:
            inner = self.condition(depth - 1)
            return Expr(f"(!{inner.text})", "b", lambda s: not inner.value(s))
        if kind == 4:
            left, right = self.condition(depth - 1), self.condition(depth - 1)
            word = self.random.choice(("&&", "||"))
            return Expr(
                f"({left.text} {word} {right.text})",
                "b",
                lambda s: (
                    left.value(s) and right.value(s)
                    if word == "&&"
                    else left.value(s) or right.value(s)
                ),
            )
        if kind == 5:
            name, key = self._maps[0], self.random.randrange(INPUTS)
            return Expr(f"has_key({name}, {key})", "b", lambda s: key in s.maps[name])
        op, type_ = self.random.choice(tuple(COMPARISONS)), self.random.choice("iu")
        left, right = self.number_of(type_, depth - 1), self.number_of(type_, depth - 1)
        return Expr(
            f"({left.text} {op} {right.text})",
            "b",
            lambda s: COMPARISONS[op](left.value(s), right.value(s)),
        )

    # --- statements ---

    def statements(self, count: int, depth: int) -> Stmt:
        """A block's statements, in a scope of their own."""
        self._scopes.append([])
        body = [self._statement(depth) for _ in range(count)]
        self._scopes.pop()

        def do(s: State) -> None:
            for each in body:
                each.do(s)

        return Stmt(" ".join(each.text for each in body), do)

    def _statement(self, depth: int) -> Stmt:
        simple = [self._let, self._let, self._assign, self._step, self._store, self._print]
        simple += [self._delete, self._store_string]
        nested = [self._if, self._for, self._while, self._unroll, self._each, self._leave]
        make = self.random.choice(simple + nested if depth > 0 else simple)
        return make(depth - 1)

    def _new_name(self) -> str:
        self._names += 1
        return f"$v{self._names}"

    def _let(self, depth: int) -> Stmt:
        name, type_ = self._new_name(), self.random.choice("iuius")
        value = self.string(2) if type_ == "s" else self.number_of(type_, 2)
        self._scopes[-1].append((name, type_))

        def do(s: State) -> None:
            s.variables[name] = value.value(s)

        # A variable of text has room for all that any later assignment may bring.
        declared = f"let {name}: string[64] = " if type_ == "s" else f"{name} = "
        return Stmt(f"{declared}{value.text};", do)

    def _assign(self, depth: int) -> Stmt:
        known = [v for scope in self._scopes for v in scope if v[0] not in self._fixed]
        if not known:
            return self._let(depth)
        name, type_ = self.random.choice(known)
        if type_ == "s":
            value = self.string(2)

            def replace(s: State) -> None:
                s.variables[name] = value.value(s)

            return Stmt(f"{name} = {value.text};", replace)
        op, value = self.random.choice("+*&|^"), self.number_of(type_, 2)

        def do(s: State) -> None:
            new = value.value(s)
            s.variables[name] = fit64(type_, ARITHMETIC[op](s.variables[name], new))

        return Stmt(f"{name} {op}= {value.text};", do)

    def _step(self, depth: int) -> Stmt:
        known = [v for scope in self._scopes for v in scope if v[1] == "i"]
        known = [v for v in known if v[0] not in self._fixed]
        if not known:
            return self._store(depth)
        name, op = self.random.choice(known)[0], self.random.choice(("++", "--"))

        def do(s: State) -> None:
            s.variables[name] = fit64("i", s.variables[name] + (1 if op == "++" else -1))

        return Stmt(f"{name}{op};", do)

    def _store(self, depth: int) -> Stmt:
        name, key = self._maps[0], self._key()
        value, op = self.number_of("i", 2), self.random.choice(("=", "+=", "^="))

        def do(s: State) -> None:
            at, new = key.value(s), value.value(s)
            if op != "=":
                new = ARITHMETIC[op[0]](s.maps[name].get(at, 0), new)
            s.maps[name][at] = fit64("i", new)

        return Stmt(f"{name}[{key.text}] {op} {value.text};", do)

    def _key(self) -> Expr:
        inner = self.number_of("u", 1)
        return Expr(f"(int64)({inner.text} % {INPUTS})", "i", lambda s: inner.value(s) % INPUTS)

    def _store_string(self, depth: int) -> Stmt:
        name, key, value = self._maps[1], self.random.randrange(3), self.string(2)

        def do(s: State) -> None:
            s.maps[name][key] = value.value(s)

        return Stmt(f"{name}[{key}] = {value.text};", do)

    def _delete(self, depth: int) -> Stmt:
        name, key = self._maps[0], self._key()
        return Stmt(
            f"delete({name}, {key.text});",
            lambda s: s.maps[name].pop(key.value(s), None) and None,
        )

    def _print(self, depth: int) -> Stmt:
        one, two, three = self.number_of("i", 2), self.number_of("u", 2), self.string(1)

        def do(s: State) -> None:
            values = (one.value(s), two.value(s), three.value(s))
            s.printed.append(f"{self.number} {values[0]} {values[1]} <{values[2]}>")

        text = f'printf("{self.number} %lld %llu <%s>\\n", {one.text}, {two.text}, {three.text});'
        return Stmt(text, do)

    def _if(self, depth: int) -> Stmt:
        test = self.condition(2)
        then, other = self.statements(2, depth), self.statements(1, depth)

        def do(s: State) -> None:
            (then if test.value(s) else other).do(s)

        return Stmt(f"if ({test.text}) {{ {then.text} }} else {{ {other.text} }}", do)

    def _loop(self, name: str, depth: int) -> Stmt:
        """The body of a loop whose variable is ``name`` ('' for none)."""
        self._loops += 1
        self._scopes.append([(name, "i")] if name else [])
        self._fixed.add(name)
        body = self.statements(2, depth)
        if self.random.random() < 0.4:
            word = self.random.choice(("break", "continue"))
            test = self.condition(1)
            error = _Break if word == "break" else _Continue
            inner = body

            def leave(s: State) -> None:
                if test.value(s):
                    raise error
                inner.do(s)

            body = Stmt(f"if ({test.text}) {{ {word}; }} {inner.text}", leave)
        self._scopes.pop()
        self._loops -= 1
        return body

    def _for(self, depth: int) -> Stmt:
        if self._loops >= self.nesting:
            return self._if(depth)
        name, start, end = self._new_name(), self.random.randrange(-2, 2), self._end()
        body = self._loop(name, depth)

        def do(s: State) -> None:
            for value in range(start, end.value(s)):
                s.variables[name] = value
                try:
                    body.do(s)
                except _Continue:
                    continue
                except _Break:
                    break

        return Stmt(f"for {name} : ((int64){start})..{end.text} {{ {body.text} }}", do)

    def _end(self) -> Expr:
        """Where a range ends; known when compiling if the verifier has to walk through it."""
        if not self.helpers:
            last = self.random.randrange(self.rounds + 1)
            return Expr(f"(int64){last}", "i", lambda s: last)
        inner, most = self._key(), self.rounds
        return Expr(
            f"({inner.text} < {most} ? {inner.text} : (int64){most})",
            "i",
            lambda s: min(inner.value(s), most),
        )

    def _while(self, depth: int) -> Stmt:
        if self._loops >= self.nesting:
            return self._if(depth)
        name, rounds = self._new_name(), self.random.randrange(1, self.rounds)
        body = self._loop(name, depth)

        def do(s: State) -> None:
            s.variables[name] = 0
            while s.variables[name] < rounds:
                s.variables[name] += 1
                try:
                    body.do(s)
                except _Continue:
                    continue
                except _Break:
                    break

        text = f"{name} = (int64)0; while ({name} < {rounds}) {{ {name}++; {body.text} }}"
        self._scopes[-1].append((name, "i"))
        return Stmt(text, do)

    def _unroll(self, depth: int) -> Stmt:
        rounds = self.random.randrange(1, 4)
        body = self.statements(1, depth)

        def do(s: State) -> None:
            for _ in range(rounds):
                body.do(s)

        return Stmt(f"unroll({rounds}) {{ {body.text} }}", do)

    def _each(self, depth: int) -> Stmt:
        """Over a map, whose order is nobody's business: a sum."""
        if not self.helpers:
            return self._if(depth)
        name, total, pair = self._maps[0], self._new_name(), self._new_name()
        self._scopes[-1].append((total, "i"))

        def do(s: State) -> None:
            values = s.maps[name].items()
            s.variables[total] = fit64("i", sum(3 * key + value for key, value in values))

        body = f"{total} += 3 * (int64){pair}.0 + (int64){pair}.1;"
        return Stmt(f"{total} = (int64)0; for {pair} : {name} {{ {body} }}", do)

    def _leave(self, depth: int) -> Stmt:
        test = self.condition(1)

        def do(s: State) -> None:
            if test.value(s):
                raise _Return

        return Stmt(f"if ({test.text}) {{ return; }}", do)


@dataclass(frozen=True)
class Script:
    """A script and what it prints.

    :ivar text: the script; it ends by itself.
    :ivar programs: the text of each of its programs.
    :ivar expected: the lines that each program prints.
    """

    text: str
    programs: list[str]
    expected: list[list[str]]


def script(random: Random, count: int, *, helpers: bool = True) -> Script:
    """A random script of ``count`` programs.

    :param helpers: for a kernel with bpf_loop and bpf_for_each_map_elem (5.17).
    """
    inputs = [random.choice((*EDGES, random.randrange(-(2**63), 2**63))) for _ in range(INPUTS)]
    inputs = [max(value, 1 - 2**63) for value in inputs]
    setup = "".join(f"@in[{key}] = (int64)({value}); " for key, value in enumerate(inputs))
    programs, expected = [], []
    for number in range(count):
        generator = Generator(random, number, helpers=helpers)
        setup += f'@m{number}[(int64)0] = (int64)1; @s{number}[0] = "abc"; '
        body, last = generator.statements(6, 3), generator._print(0)
        state = State({"@in": dict(enumerate(inputs)), f"@m{number}": {0: 1}})
        state.maps[f"@s{number}"] = {0: "abc"}
        try:
            body.do(state)
            last.do(state)
        except _Return:
            pass
        programs.append(f"begin {{ {body.text} {last.text} }}")
        expected.append(state.printed)
    text = "\n".join([f"begin {{ {setup}}}", *programs])
    return Script(f"config = {{ print_maps_on_exit = 0 }}\n{text}\n", programs, expected)


def mismatches(made: Script, printed: str) -> list[str]:
    """A report for each program that printed something else than its evaluation says."""
    lines = printed.splitlines()
    found = []
    for number, (program, wanted) in enumerate(zip(made.programs, made.expected, strict=True)):
        got = [line for line in lines if line.split(" ", 1)[0] == str(number)]
        if got != wanted:
            found.append(f"{program}\nwanted {wanted}\ngot    {got}")
    return found
