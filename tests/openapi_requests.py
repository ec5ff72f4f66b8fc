"""Requests made from an API's own description: as it says they should be, nearly so, and not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, urlencode

from hypothesis import strategies as st

TEXT: Final = st.text(max_size=20) | st.sampled_from(["", ".", "..", "~", "a/b", "a%2fb", "\0", "é", "x" * 300, "null"])
MANGLED_SHARE: Final = 3
"""One request in so many is not as the description says, and of its parts as many."""

Json: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class Operation:
    """One route of the description."""

    method: str
    path: str
    described: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    def codes(self, status: int) -> set[str]:
        """Name the codes that the description allows with *status*."""
        answer = self.described["responses"].get(str(status), {})
        schema = answer.get("content", {}).get("application/problem+json", {}).get("schema", {})
        return set(schema.get("properties", {}).get("code", {}).get("enum", ()))


@dataclass(frozen=True)
class MadeRequest:
    """What is sent, byte for byte."""

    operation: Operation
    path: str
    headers: Mapping[str, str]
    body: bytes | None


def operations(description: Mapping[str, Any]) -> list[Operation]:
    return [
        Operation(method.upper(), path, described)
        for path, methods in description["paths"].items()
        for method, described in methods.items()
    ]


@dataclass(frozen=True)
class Maker:
    """Makes requests; *known* gives values that exist, by the name of a parameter or member."""

    description: Mapping[str, Any]
    known: Mapping[str, list[Any]] = field(default_factory=dict)
    is_loose: bool = False
    """Some parts are not as they should be."""

    def requests(self) -> st.SearchStrategy[MadeRequest]:
        return st.sampled_from(operations(self.description)).flatmap(self.of)

    @st.composite
    @staticmethod
    def _of(draw: st.DrawFn, maker: "Maker", operation: Operation) -> MadeRequest:
        # Counted from the top, so that what hypothesis makes simplest is a request as it should be.
        maker = replace(maker, is_loose=draw(st.integers(1, MANGLED_SHARE)) == MANGLED_SHARE)
        path, query, headers = operation.path, [], {}
        for parameter in operation.described.get("parameters", []):
            name, where = parameter["name"], parameter["in"]
            if where != "path" and draw(st.booleans()) and not parameter.get("required"):
                continue
            value = draw(maker.value(name, parameter.get("schema", {})))
            text = value if isinstance(value, str) else repr(value)
            match where:
                case "path":
                    path = path.replace(f"{{{name}}}", quote(text.encode("utf-8", "replace"), safe="~"))
                case "query":
                    query.append((name, text.encode("utf-8", "replace")))
                case "header":
                    headers[name] = "".join(each for each in text if " " <= each <= "~") or "key"
        body = None
        if "requestBody" in operation.described:
            (content_type, content), *_ = operation.described["requestBody"]["content"].items()
            headers["Content-Type"] = content_type
            body = draw(maker.body(content.get("schema", {})))
        return MadeRequest(operation, f"{path}?{urlencode(query)}" if query else path, headers, body)

    def of(self, operation: Operation) -> st.SearchStrategy[MadeRequest]:
        """Make requests of one route."""
        return Maker._of(self, operation)

    def body(self, schema: Mapping[str, Any]) -> st.SearchStrategy[bytes]:
        import json  # noqa: PLC0415 - the module's `Json` is another thing

        made = self.value("", schema).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
        return made | made | made | st.binary(max_size=40) if self.is_loose else made

    def value(self, name: str, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
        """Make a value for *name*: one that is known, or one that fits; of a loose maker also another."""
        fitting = st.sampled_from(self.known[name]) if name in self.known else self._fitting(schema)
        if not self.is_loose:
            return fitting
        return st.integers(1, MANGLED_SHARE).flatmap(lambda turn: Json if turn == MANGLED_SHARE else fitting)

    def _fitting(self, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
        schema = resolved(self.description, schema)
        match schema:
            case {"const": value}:
                return st.just(value)
            case {"enum": values}:
                return st.sampled_from(values)
            case {"anyOf": choices}:
                return st.one_of([self._fitting(choice) for choice in choices])
            case {"type": "integer"}:
                return st.integers(schema.get("minimum", -5), min(schema.get("maximum", 50), 50))
            case {"type": "boolean"}:
                return st.booleans()
            case {"type": "null"}:
                return st.none()
            case {"type": "string"}:
                return TEXT
            case {"type": "array"}:
                return st.lists(self.value("", schema.get("items", {})), min_size=schema.get("minItems", 0), max_size=3)
            case {"type": "object"} if "properties" in schema:
                members = {name: self.value(name, each) for name, each in schema["properties"].items()}
                required = set(schema.get("required", ()))
                return st.fixed_dictionaries(
                    {name: value for name, value in members.items() if name in required},
                    optional={name: value for name, value in members.items() if name not in required},
                )
        return Json


def resolved(description: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def fits(description: Mapping[str, Any], schema: Mapping[str, Any], value: Any) -> bool:
    """Tell whether an answer is as it is described: types, required members, and no others than described."""
    schema = resolved(description, schema)
    match schema:
        case {"anyOf": choices}:
            return any(fits(description, choice, value) for choice in choices)
        case {"enum": values}:
            return value in values
        case {"type": "array"}:
            return isinstance(value, list) and all(fits(description, schema.get("items", {}), each) for each in value)
        case {"type": "object", "properties": properties}:
            return (
                isinstance(value, dict)
                and set(schema.get("required", ())) <= set(value) <= set(properties)
                and all(fits(description, properties[name], each) for name, each in value.items())
            )
        case {"type": str(kind)}:
            return isinstance(value, _KINDS[kind]) and not (kind != "boolean" and isinstance(value, bool))
    return True


_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
}
