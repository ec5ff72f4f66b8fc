"""
Requests at random, over few keys and few names, so that they meet: for running two stores side by side.

They keep to what the embedded engine does as AWS does it; where it does not, a comment says what is left out.
"""

import re
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.memory_dynamodb.tables import KeyKind

KINDS: dict[str, KeyKind] = {"numbers": "N", "texts": "S"}
"""The tables that requests name, by the kind of their sort key."""

NAMES = st.sampled_from(["x", "y", "z"])
SORT_KEYS: dict[str, st.SearchStrategy[Any]] = {
    "numbers": st.sampled_from([{"N": text} for text in ("-1", "0", "2", "10", "2.5")]),
    "texts": st.sampled_from([{"S": text} for text in ("a", "a#", "a#1", "b", "é")]),
}
TEXTS = st.sampled_from(["", "a", "ab", "é"]).map(lambda text: {"S": text})
ORDERED = st.one_of(
    st.sampled_from(["0", "1", "-5", "3.5", "10", "1e2", "0.10", "007", "9" * 26]).map(lambda text: {"N": text}),
    TEXTS,
    st.sampled_from([b"", b"a", b"ab"]).map(lambda octets: {"B": octets}),
)
"""
What `<` and its like take; the engine lets them take anything, and AWS does not.

Numbers stay below 28 digits: in a sum the engine drops what is behind those, where AWS refuses what it cannot keep.
"""
SCALARS = st.one_of(
    ORDERED,
    st.booleans().map(lambda truth: {"BOOL": truth}),
    st.just({"NULL": True}),
)
SETS = st.one_of(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, unique=True).map(lambda members: {"SS": members}),
    st.lists(st.sampled_from(["1", "2", "3"]), min_size=1, unique=True).map(lambda members: {"NS": members}),
)
LISTS = st.lists(SCALARS, max_size=2).map(lambda members: {"L": members})
MAPS = st.dictionaries(st.sampled_from(["k", "l"]), SCALARS, max_size=2).map(lambda members: {"M": members})
VALUES = st.one_of(
    SCALARS,
    SETS,
    LISTS,
    MAPS,
)
SOURCES = ("value", "value", "sum", "default", "count", "append", "other")
FIXED = st.fixed_dictionaries({}, optional={"text": TEXTS, "list": LISTS, "map": MAPS, "count": st.just({"N": "7"})})
"""Attributes that are of one kind wherever they are."""


class Text:
    """An expression being written, with its placeholders."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.names: dict[str, str] = {}
        self.values: dict[str, Any] = {}

    def name(self) -> str:
        name = self.draw(NAMES)
        self.names[f"#{name}"] = name
        return f"#{name}"

    def path(self) -> str:
        return self.name() + self.draw(st.sampled_from(["", "", "", ".k", "[0]"]))

    def value(self, values: st.SearchStrategy[Any] = VALUES) -> str:
        self.values[f":{len(self.values)}"] = self.draw(values)
        return f":{len(self.values) - 1}"

    def condition(self, depth: int = 2) -> str:
        shapes = ["exists", "missing", "compare", "begins", "between"] + (["and", "or", "not"] if depth else [])
        match self.draw(st.sampled_from(shapes)):
            case "exists":
                return f"attribute_exists({self.path()})"
            case "missing":
                return f"attribute_not_exists({self.path()})"
            case "begins":
                # Of an attribute that is always text: the engine refuses to look at another, AWS finds it false.
                return f"begins_with({self.fixed('#text')}, {self.value(TEXTS)})"
            case "between":
                low, high = sorted(self.draw(st.tuples(st.integers(0, 9), st.integers(0, 9))))
                bounds = [self.value(st.just({"N": str(bound)})) for bound in (low, high)]
                return f"{self.path()} BETWEEN {bounds[0]} AND {bounds[1]}"
            case "and":
                return f"{self.part(depth)} AND {self.part(depth)}"
            case "or":
                return f"{self.part(depth)} OR {self.part(depth)}"
            case "not":
                return f"NOT {self.part(depth)}"
            case _:
                order = self.draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]))
                return f"{self.path()} {order} {self.value(VALUES if order in {'=', '<>'} else ORDERED)}"

    def part(self, depth: int) -> str:
        inner = self.condition(depth - 1)
        return f"({inner})" if " AND " in inner or " OR " in inner else inner

    def update(self) -> str:
        """
        Change each name in one place at most, and attributes of a fixed kind in ways that fit it.

        The engine lets paths overlap, removes what is not there, counts on from text and appends to numbers; AWS
        refuses all of this, and so does memory.
        """
        targets = self.draw(st.permutations(["#x", "#y", "#z", "#map.k", "#list[0]", "#count"]))
        clauses: dict[str, list[str]] = {"SET": [], "ADD": [], "REMOVE": []}
        for target in targets[: self.draw(st.integers(1, 3))]:
            self.fixed(target)
            section = self.draw(st.sampled_from(["SET", "SET", "ADD", "REMOVE"])) if "." not in target else "SET"
            match "SET" if "[" in target else section:
                case "SET":
                    kinds = ["sum", "count"] if target == "#count" else SOURCES
                    clauses["SET"].append(f"{target} = {self.source(kinds)}")
                case "ADD":
                    added = st.sampled_from([{"N": "1"}, {"N": "-2.5"}])
                    added = added if target == "#count" else st.one_of(SETS, added)
                    clauses["ADD"].append(f"{target} {self.value(added)}")
                case _:
                    clauses["REMOVE"].append(target)
        return " ".join(f"{section} {', '.join(parts)}" for section, parts in clauses.items() if parts)

    def source(self, kinds: Sequence[str]) -> str:
        match self.draw(st.sampled_from(kinds)):
            case "sum":
                number = self.value(st.sampled_from([{"N": "1"}, {"N": "-2.5"}, {"N": "9" * 26}]))
                return f"{self.fixed('#count')} {self.draw(st.sampled_from('+-'))} {number}"
            case "default":
                return f"if_not_exists({self.path()}, {self.value()})"
            case "count":
                zero, one = self.value(st.just({"N": "0"})), self.value(st.just({"N": "1"}))
                return f"if_not_exists({self.fixed('#count')}, {zero}) + {one}"
            case "append":
                some, none = self.value(LISTS), self.value(st.just({"L": []}))
                return f"list_append(if_not_exists({self.fixed('#list')}, {none}), {some})"
            case "other":
                return self.path()
            case _:
                return self.value()

    def fixed(self, path: str) -> str:
        name = re.split(r"[.\[]", path)[0]
        self.names[name] = name[1:]
        return path

    def placeholders(self) -> dict[str, Any]:
        names: dict[str, Any] = {"ExpressionAttributeNames": self.names} if self.names else {}
        return names | ({"ExpressionAttributeValues": self.values} if self.values else {})


@st.composite
def keys(draw: Any, role: str) -> dict[str, Any]:
    return {"pk": {"S": draw(st.sampled_from(["one", "two"]))}, "sk": draw(SORT_KEYS[role])}


@st.composite
def writes(draw: Any, kinds: tuple[str, ...] = ("Put", "Update", "Delete")) -> tuple[str, dict[str, Any]]:
    """A write of some kind, under a condition or none."""
    role, kind, expressions = draw(st.sampled_from(sorted(KINDS))), draw(st.sampled_from(kinds)), Text(draw)
    key = draw(keys(role))
    request: dict[str, Any] = {"TableName": role}
    if kind == "Put":
        request["Item"] = draw(st.dictionaries(NAMES, VALUES, max_size=3)) | draw(FIXED) | key
    else:
        request["Key"] = key
    if kind == "Update":
        request["UpdateExpression"] = expressions.update()
    if kind == "ConditionCheck" or draw(st.booleans()):
        request["ConditionExpression"] = expressions.condition()
        if draw(st.booleans()):
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    return kind, request | expressions.placeholders()


@st.composite
def writes_alone(draw: Any) -> tuple[str, dict[str, Any]]:
    kind, request = draw(writes())
    returned = ["NONE", "ALL_OLD", *(["ALL_NEW"] if kind == "Update" else [])]
    # Of one member of a list, the engine returns all.
    returned += ["UPDATED_OLD", "UPDATED_NEW"] if kind == "Update" and "[" not in request["UpdateExpression"] else []
    return f"{kind}Item", request | {"ReturnValues": draw(st.sampled_from(returned))}


def place(write: tuple[str, dict[str, Any]]) -> str:
    request = write[1]
    key = request.get("Key") or request["Item"]
    return f"{request['TableName']} {key['pk']} {key['sk']}"


@st.composite
def transactions(draw: Any) -> tuple[str, dict[str, Any]]:
    kinds = writes(("Put", "Update", "Delete", "ConditionCheck"))
    actions = draw(st.lists(kinds, min_size=1, max_size=4, unique_by=place))
    return "TransactWriteItems", {"TransactItems": [{kind: action} for kind, action in actions]}


@st.composite
def batches(draw: Any) -> tuple[str, dict[str, Any]]:
    asked: dict[str, list[Any]] = {}
    for kind, write in draw(st.lists(writes(("Put", "Delete")), min_size=1, max_size=4, unique_by=place)):
        name, content = ("PutRequest", "Item") if kind == "Put" else ("DeleteRequest", "Key")
        asked.setdefault(write["TableName"], []).append({name: {content: write[content]}})
    return "BatchWriteItem", {"RequestItems": asked}


@st.composite
def reads(draw: Any) -> tuple[str, dict[str, Any]]:
    role, text = draw(st.sampled_from(sorted(KINDS))), Text(draw)
    kind = draw(st.sampled_from(["GetItem", "Query", "Query", "BatchGetItem", "TransactGetItems"]))
    asked = draw(st.lists(keys(role), min_size=1, max_size=3))
    if kind == "BatchGetItem":
        return kind, {"RequestItems": {role: {"Keys": asked, "ConsistentRead": True}}}
    if kind == "TransactGetItems":
        return kind, {"TransactItems": [{"Get": {"TableName": role, "Key": key}} for key in asked]}
    request: dict[str, Any] = {"TableName": role}
    if draw(st.booleans()):
        request["ProjectionExpression"] = draw(st.sampled_from(["pk, sk", "sk, x", "x.k, y", "x[0], x[1]"]))
    if kind == "GetItem":
        return kind, request | {"Key": asked[0]}
    request["KeyConditionExpression"] = draw(key_conditions(role, text))
    if draw(st.booleans()):
        request["FilterExpression"] = text.condition(1)
    if draw(st.booleans()):
        request["Limit"] = draw(st.integers(1, 3))
    return kind, request | {"ScanIndexForward": draw(st.booleans())} | text.placeholders()


@st.composite
def key_conditions(draw: Any, role: str, text: Text) -> str:
    whole = f"pk = {text.value(st.just({'S': 'one'}))}"
    match draw(st.sampled_from(["", "order", "between", "begins"])):
        case "order":
            return f"{whole} AND sk {draw(st.sampled_from(['=', '<', '<=', '>', '>=']))} {text.value(SORT_KEYS[role])}"
        case "between":
            return f"{whole} AND sk BETWEEN {text.value(SORT_KEYS[role])} AND {text.value(SORT_KEYS[role])}"
        case "begins" if role == "texts":
            return f"{whole} AND begins_with(sk, {text.value(SORT_KEYS[role])})"
    return whole


REQUESTS = st.lists(st.one_of(writes_alone(), writes_alone(), transactions(), batches(), reads()), max_size=12)
