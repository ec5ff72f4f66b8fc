"""
DynamoDB's expressions, from text to a tree: the grammar of the developer guide, as far as Holdfast uses it.

Conditions: `= <> < <= > >= BETWEEN AND OR NOT ()`, `attribute_exists`, `attribute_not_exists`, `begins_with`. Updates:
`SET` with `+ - if_not_exists list_append`, `ADD`, `REMOVE`. Anything else is refused, as DynamoDB refuses what is
wrong: a test then says that this store has to learn it.
"""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Final, NoReturn

from tests.memory_dynamodb.values import invalid

BYTES_MAX: Final = 4096
"""One expression."""
PARSED_MAX: Final = 4096
"""How many expressions are remembered as trees; a program has far fewer."""


@dataclass(frozen=True)
class Path:
    """Where a value lies: a name or `#placeholder`, then members and indexes."""

    steps: tuple[str | int, ...]


@dataclass(frozen=True)
class Value:
    """A `:placeholder`."""

    name: str


@dataclass(frozen=True)
class IfNotExists:
    path: Path
    otherwise: "Operand"


@dataclass(frozen=True)
class ListAppend:
    first: "Operand"
    second: "Operand"


@dataclass(frozen=True)
class Sum:
    first: "Operand"
    sign: int
    second: "Operand"


Operand = Path | Value | IfNotExists | ListAppend | Sum


@dataclass(frozen=True)
class Compare:
    operator: str
    left: Operand
    right: Operand


@dataclass(frozen=True)
class Between:
    value: Operand
    low: Operand
    high: Operand


@dataclass(frozen=True)
class Exists:
    path: Path


@dataclass(frozen=True)
class BeginsWith:
    value: Operand
    prefix: Operand


@dataclass(frozen=True)
class All:
    parts: "tuple[Condition, ...]"


@dataclass(frozen=True)
class AnyOf:
    parts: "tuple[Condition, ...]"


@dataclass(frozen=True)
class Not:
    part: "Condition"


Condition = Compare | Between | Exists | BeginsWith | All | AnyOf | Not


@dataclass(frozen=True)
class Update:
    sets: tuple[tuple[Path, Operand], ...] = ()
    adds: tuple[tuple[Path, Value], ...] = ()
    removes: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        return (*(path for path, _ in self.sets), *(path for path, _ in self.adds), *self.removes)


@dataclass(frozen=True)
class Uses:
    """The placeholders that an expression names."""

    names: frozenset[str]
    values: frozenset[str]


@lru_cache(PARSED_MAX)
def parse_condition(text: str) -> tuple[Condition, Uses]:
    parser = _Parser("ConditionExpression", text)
    tree = parser.condition()
    return tree, parser.finish()


@lru_cache(PARSED_MAX)
def parse_update(text: str) -> tuple[Update, Uses]:
    parser = _Parser("UpdateExpression", text)
    tree = parser.update()
    _check_apart("UpdateExpression", tree.paths)
    return tree, parser.finish()


@lru_cache(PARSED_MAX)
def parse_projection(text: str) -> tuple[tuple[Path, ...], Uses]:
    parser = _Parser("ProjectionExpression", text)
    paths = tuple(parser.separated(parser.path))
    _check_apart("ProjectionExpression", paths)
    return paths, parser.finish()


def _check_apart(kind: str, paths: Sequence[Path]) -> None:
    """Refuse two paths of which one leads into the other; those that differ by a placeholder are seen at use."""
    for index, path in enumerate(paths):
        for other in paths[:index]:
            check_two(kind, path.steps, other.steps)


def check_two(kind: str, one: Sequence[str | int], other: Sequence[str | int]) -> None:
    shared = min(len(one), len(other))
    if one[:shared] == other[:shared]:
        invalid(f"Invalid {kind}: Two document paths overlap with each other")


def reserved_words() -> frozenset[str]:
    """DynamoDB's reserved words, from the list that moto carries, without importing moto."""
    found = importlib.util.find_spec("moto")
    assert found is not None
    assert found.origin is not None
    words = FilePath(found.origin).parent / "dynamodb/parsing/reserved_keywords.txt"
    return frozenset(words.read_text().upper().split())


RESERVED: Final = reserved_words()
COMPARATORS: Final = frozenset({"=", "<>", "<", "<=", ">", ">="})
SECTIONS: Final = frozenset({"SET", "ADD", "REMOVE"})
_TOKEN: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*|[#:][A-Za-z0-9_]+|[0-9]+|<>|<=|>=|[=<>(),.\[\]+-])")


class _Parser:
    """Recursive descent over the tokens; the end is the token ''."""

    def __init__(self, kind: str, text: str) -> None:
        self._kind = kind
        self._names: set[str] = set()
        self._values: set[str] = set()
        self._at = 0
        if len(text.encode()) > BYTES_MAX:
            invalid(f"Invalid {kind}: Expression size has exceeded the maximum allowed size")
        self._tokens = []
        start = 0
        while text[start:].strip():
            match = _TOKEN.match(text, start)
            if not match:
                self._fail(text[start:].strip()[0])
            self._tokens.append(match[1])
            start = match.end()
        if not self._tokens:
            invalid(f"Invalid {kind}: The expression can not be empty;")

    def finish(self) -> Uses:
        if self._peek():
            self._fail(self._peek())
        return Uses(frozenset(self._names), frozenset(self._values))

    # ----- conditions: OR binds less than AND, AND less than NOT

    def condition(self) -> Condition:
        parts = [self._conjunction()]
        while self._take_word("OR"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _conjunction(self) -> Condition:
        parts = [self._negation()]
        while self._take_word("AND"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _negation(self) -> Condition:
        if self._take_word("NOT"):
            return Not(self._negation())
        if self._take("("):
            inner = self.condition()
            self._expect(")")
            return inner
        return self._test()

    def _test(self) -> Condition:
        match self._peek(), self._peek(1):
            case "attribute_exists" | "attribute_not_exists" as function, "(":
                (path,) = self._arguments(self.path)
                return Exists(path) if function == "attribute_exists" else Not(Exists(path))
            case "begins_with", "(":
                return BeginsWith(*self._arguments(self._simple, self._simple))
        left = self._simple()
        if self._take_word("BETWEEN"):
            low = self._simple()
            if not self._take_word("AND"):
                self._fail(self._peek())
            return Between(left, low, self._simple())
        if self._peek() not in COMPARATORS:
            self._fail(self._peek())
        return Compare(self._next(), left, self._simple())

    # ----- updates

    def update(self) -> Update:
        sections: dict[str, Sequence[object]] = {}
        while self._peek():
            section = self._next().upper()
            if section not in SECTIONS:
                self._fail(section)
            if section in sections:
                invalid(f'Invalid UpdateExpression: The "{section}" section can only be used once')
            clause = {"SET": self._set, "ADD": self._add, "REMOVE": self.path}[section]
            sections[section] = self.separated(clause)
        return Update(*(tuple(sections.get(name, ())) for name in ("SET", "ADD", "REMOVE")))  # type: ignore[arg-type]

    def _set(self) -> tuple[Path, Operand]:
        path = self.path()
        self._expect("=")
        first = self._operand()
        if self._peek() in {"+", "-"}:
            sign = 1 if self._next() == "+" else -1
            return path, Sum(first, sign, self._operand())
        return path, first

    def _add(self) -> tuple[Path, Value]:
        return self.path(), self._value()

    def _operand(self) -> Operand:
        match self._peek(), self._peek(1):
            case "if_not_exists", "(":
                return IfNotExists(*self._arguments(self.path, self._operand))
            case "list_append", "(":
                return ListAppend(*self._arguments(self._operand, self._operand))
            case "(", _:
                self._expect("(")
                inner = self._operand()
                self._expect(")")
                return inner
        return self._simple()

    # ----- what both are made of

    def separated(self, part):
        parts = [part()]
        while self._take(","):
            parts.append(part())
        return parts

    def _arguments(self, *parts):
        self._next()
        self._expect("(")
        found = []
        for index, part in enumerate(parts):
            if index:
                self._expect(",")
            found.append(part())
        self._expect(")")
        return found

    def _simple(self) -> Path | Value:
        return self._value() if self._peek().startswith(":") else self.path()

    def _value(self) -> Value:
        token = self._next()
        if not token.startswith(":"):
            self._fail(token)
        self._values.add(token)
        return Value(token)

    def path(self) -> Path:
        steps: list[str | int] = [self._name()]
        while True:
            if self._take("."):
                steps.append(self._name())
            elif self._take("["):
                index = self._next()
                if not index.isdecimal():
                    self._fail(index)
                steps.append(int(index))
                self._expect("]")
            else:
                return Path(tuple(steps))

    def _name(self) -> str:
        token = self._next()
        if token.startswith("#"):
            self._names.add(token)
        elif not token or not (token[0].isalpha() or token[0] == "_"):
            self._fail(token)
        elif token.upper() in RESERVED:
            invalid(f"Invalid {self._kind}: Attribute name is a reserved keyword; reserved keyword: {token}")
        return token

    # ----- tokens

    def _peek(self, ahead: int = 0) -> str:
        index = self._at + ahead
        return self._tokens[index] if index < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _take(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self._at += 1
        return True

    def _take_word(self, word: str) -> bool:
        return self._peek().upper() == word and self._take(self._peek())

    def _expect(self, token: str) -> None:
        if not self._take(token):
            self._fail(self._peek())

    def _fail(self, token: str) -> NoReturn:
        invalid(f'Invalid {self._kind}: Syntax error; token: "{token or "<EOF>"}"')
