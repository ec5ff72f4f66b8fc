"""
What a function asks of DynamoDB, and what its role in the template lets it ask: IAM's own words for both.

    watch = Watch(transport)
    with watch.acting("Indexer"):
        ...
    assert watch.refused("audit") == []
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from holdfast.dynamodb.transport import Answer, Transport
from stacks import fragments

API: Final = fragments.API_HANDLER
OF_A_TRANSACTION: Final = {
    "ConditionCheck": "ConditionCheckItem",
    "Delete": "DeleteItem",
    "Put": "PutItem",
    "Update": "UpdateItem",
}
TABLES: Final = {f"{name.capitalize()}Table": name for name in ("commits", "operations", "log", "views")}
"""By their resources' names in the template, the tables as the labs name them."""
OF_KEYS: Final = "ForAllValues:StringLike"
LEADING_KEYS: Final = "dynamodb:LeadingKeys"


class Use(msgspec.Struct, frozen=True, order=True):
    """One action on one partition key of a table; a walk over the table has none."""

    action: str
    table: str
    key: str = ""


class Grant(msgspec.Struct, frozen=True, order=True):
    """One action on a table, on the keys that fit one of the patterns."""

    action: str
    table: str
    keys: tuple[str, ...] = ("*",)

    def allows(self, use: Use) -> bool:
        is_meant = (self.action, self.table) == (use.action, use.table)
        return is_meant and any(fnmatchcase(use.key, pattern) for pattern in self.keys)


class Watch:
    """A transport that notes who asks for what."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._who = ""
        self.uses: dict[str, set[Use]] = defaultdict(set)

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        if self._who:
            self.uses[self._who].update(uses_of(operation, request))
        return self._inner.call(operation, request)

    @contextmanager
    def acting(self, function: str) -> Iterator[None]:
        """Note what is asked for inside as asked by *function*; nobody else asks then."""
        self._who, before = function, self._who
        try:
            yield
        finally:
            self._who = before

    def refused(self, service: str) -> list[tuple[str, Use]]:
        """Name what was asked for and is not granted, by function."""
        return sorted(
            (function, use)
            for function, grants in grants_of(service, list(self.uses)).items()
            for use in self.uses[function]
            if not any(grant.allows(use) for grant in grants)
        )

    def idle(self, service: str) -> list[tuple[str, Grant]]:
        """Name what is granted and was not asked for, by function."""
        return sorted(
            (function, grant)
            for function, grants in grants_of(service, list(self.uses)).items()
            for grant in grants
            if not any(map(grant.allows, self.uses[function]))
        )


def uses_of(operation: str, request: Mapping[str, Any]) -> Iterator[Use]:
    """Say which permissions a request takes, as AWS's reference of DynamoDB's actions has it."""
    match operation:
        case "TransactWriteItems":
            for action in request["TransactItems"]:
                ((kind, content),) = action.items()
                yield Use(OF_A_TRANSACTION[kind], content["TableName"], _key(content))
        case "BatchGetItem" | "BatchWriteItem":
            for table, asked in request["RequestItems"].items():
                yield from (Use(operation, table, key) for key in _keys(asked))
        case "Query":
            yield Use(operation, request["TableName"], request["ExpressionAttributeValues"][":pk"]["S"])
        case "Scan":
            yield Use(operation, request["TableName"])
        case _:
            yield Use(operation, request["TableName"], _key(request))


def _keys(asked: Any) -> Iterator[str]:
    """Name the partition keys of a batch's part."""
    if isinstance(asked, Mapping):
        yield from (key["pk"]["S"] for key in asked["Keys"])
        return
    for each in asked:
        ((_, content),) = each.items()
        yield _key(content)


def _key(content: Mapping[str, Any]) -> str:
    key: str = content.get("Key", content.get("Item"))["pk"]["S"]
    return key


def grants_of(service: str, functions: list[str]) -> dict[str, list[Grant]]:
    """Read what each function's role allows, and the policies that are added to it."""
    own = fragments.read(service)
    own["Metadata"]["Holdfast"]["Awaits"] = []
    resources = fragments.whole(own, service, functions)["Resources"]
    return {function: list(_granted(resources, fragments.role_name(function))) for function in functions}


def _granted(resources: Mapping[str, Any], role: str) -> Iterator[Grant]:
    documents = [policy["PolicyDocument"] for policy in resources[role]["Properties"]["Policies"]]
    documents += [
        each["Properties"]["PolicyDocument"]
        for each in resources.values()
        if each["Type"] == "AWS::IAM::Policy" and {"Ref": role} in each["Properties"]["Roles"]
    ]
    for document in documents:
        for statement in document["Statement"]:
            condition = statement.get("Condition", {}).get(OF_KEYS, {})
            keys = tuple(_listed(condition.get(LEADING_KEYS, "*")))
            for action in _listed(statement["Action"]):
                for resource in _listed(statement["Resource"]):
                    match resource:
                        case {"Fn::GetAtt": [name, "Arn"]} if name in TABLES:
                            yield Grant(action.removeprefix("dynamodb:"), TABLES[name], keys)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
