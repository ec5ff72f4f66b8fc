"""
What a function asks of AWS, and what its role in the template lets it ask: IAM's own words for both.

    watch = Watch(transport)
    objects = WatchedObjects(MemoryObjects(), watch, "ArchiveBucket")
    with watch.acting("Indexer"):
        ...
    assert watch.refused("audit") == []

What stands in for a service notes what its counterpart on AWS would ask for.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from holdfast.anchors import Signer
from holdfast.broadcast import Post
from holdfast.cloudevents import Attributes
from holdfast.dynamodb.transport import Answer, Transport
from holdfast.envelope import Context, DataKey, KeyRing, WrappedKey
from holdfast.objects import Objects
from holdfast.outbox import Message, Outbox, RefusedMessage
from stacks import fragments

API: Final = fragments.API_HANDLER
OF_A_TRANSACTION: Final = {
    "ConditionCheck": "ConditionCheckItem",
    "Delete": "DeleteItem",
    "Put": "PutItem",
    "Update": "UpdateItem",
}
TABLES: Final = {name: f"{name.capitalize()}Table" for name in ("commits", "operations", "log", "views")}
"""The tables as the labs name them, with their resources' names in the template."""
OF_KEYS: Final = "ForAllValues:StringLike"
LEADING_KEYS: Final = "dynamodb:LeadingKeys"
BY_LAMBDA: Final = {
    "dynamodb:DescribeStream",
    "dynamodb:GetRecords",
    "dynamodb:GetShardIterator",
    "dynamodb:ListStreams",
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
}
"""What Lambda itself does in a function's role, to bring it its records and messages."""
ELSEWHERE: Final = {"StreamFailures", "RevocationsTable", "/holdfast/auth/jwks", "/holdfast/auth/cursor-key"}
"""
What no function of a lab asks for: Lambda sends there what a function has failed on, and whether a token or a cursor is
good is said by the lab.
"""


class Use(msgspec.Struct, frozen=True, order=True):
    """One action on a resource of the template; of a table's, on one partition key (a walk over the table has none)."""

    action: str
    resource: str
    key: str = ""


class Grant(msgspec.Struct, frozen=True, order=True):
    """One action on a resource, on the keys that fit one of the patterns."""

    action: str
    resource: str
    keys: tuple[str, ...] = ("*",)

    def allows(self, use: Use) -> bool:
        is_meant = (self.action, self.resource) == (use.action, use.resource)
        return is_meant and any(fnmatchcase(use.key, pattern) for pattern in self.keys)

    @property
    def is_seen(self) -> bool:
        """Tell whether a lab would see it used."""
        return self.action not in BY_LAMBDA and self.resource not in ELSEWHERE


class Watch:
    """A transport that notes who asks for what, and takes notes of what else is asked for."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._who = ""
        self.uses: dict[str, set[Use]] = defaultdict(set)

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        self._note(uses_of(operation, request))
        return self._inner.call(operation, request)

    def note(self, resource: str, *actions: str, key: str = "") -> None:
        self._note(Use(action, resource, key) for action in actions)

    def _note(self, uses: Iterable[Use]) -> None:
        if self._who:
            self.uses[self._who].update(uses)

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
            if grant.is_seen and not any(map(grant.allows, self.uses[function]))
        )


def uses_of(operation: str, request: Mapping[str, Any]) -> Iterator[Use]:
    """Say which permissions a request takes, as AWS's reference of DynamoDB's actions has it."""
    match operation:
        case "TransactWriteItems":
            for action in request["TransactItems"]:
                ((kind, content),) = action.items()
                yield _use(OF_A_TRANSACTION[kind], content["TableName"], _key(content))
        case "BatchGetItem" | "BatchWriteItem":
            for table, asked in request["RequestItems"].items():
                yield from (_use(operation, table, key) for key in _keys(asked))
        case "Query":
            yield _use(operation, request["TableName"], request["ExpressionAttributeValues"][":pk"]["S"])
        case "Scan":
            yield _use(operation, request["TableName"])
        case _:
            yield _use(operation, request["TableName"], _key(request))


def _use(action: str, table: str, key: str = "") -> Use:
    return Use(f"dynamodb:{action}", TABLES[table], key)


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
            keys = statement.get("Condition", {}).get(OF_KEYS, {}).get(LEADING_KEYS)
            for resource in _listed(statement["Resource"]):
                name, path = _named(resource)
                for action in _listed(statement["Action"]):
                    yield Grant(action, name, tuple(_listed(keys or path)))


def _named(resource: Any) -> tuple[str, str]:
    """Say which resource or parameter of the template is meant, or which parameter of the account; and what of it."""
    text = str(resource.get("Fn::Sub", ""))
    names = [name for name in fragments.names_in(resource) if name != "AWS"]
    return names[-1] if names else text.partition(":parameter")[2], text.partition(".Arn}/")[2] or "*"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# ----- what stands in for a service


@dataclass(frozen=True)
class WatchedObjects:
    """A bucket. S3 tells that an object is not there only to who may list the bucket, so whoever reads needs both."""

    inner: Objects
    watch: Watch
    bucket: str

    def put_new(self, key: str, body: bytes) -> bool:
        self.watch.note(self.bucket, "s3:PutObject", key=key)
        if self.inner.get(key) is not None:
            self._note_reading(key)  # of what stands in the way, which may be its own
        return self.inner.put_new(key, body)

    def get(self, key: str) -> bytes | None:
        self._note_reading(key)
        return self.inner.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self._note_reading(key)
        return self.inner.get_range(key, offset, length)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        self.watch.note(self.bucket, "s3:ListBucket")
        return self.inner.keys(prefix, after)

    def _note_reading(self, key: str) -> None:
        self.watch.note(self.bucket, "s3:GetObject", key=key)
        self.watch.note(self.bucket, "s3:ListBucket")


@dataclass(frozen=True)
class WatchedRing:
    inner: KeyRing
    watch: Watch

    def make(self, context: Context) -> WrappedKey:
        self.watch.note("SubjectsKey", "kms:GenerateDataKey")
        return self.inner.make(context)

    def unwrap(self, wrapped: bytes, context: Context) -> DataKey:
        self.watch.note("SubjectsKey", "kms:Decrypt")
        return self.inner.unwrap(wrapped, context)


@dataclass(frozen=True)
class WatchedSigner:
    inner: Signer
    watch: Watch

    @property
    def public_key(self) -> bytes:
        self.watch.note("AnchorKey", "kms:GetPublicKey")
        return self.inner.public_key

    def sign(self, message: bytes) -> bytes:
        self.watch.note("AnchorKey", "kms:Sign")
        return self.inner.sign(message)


@dataclass(frozen=True)
class WatchedOutbox:
    """The way out. What sends batches takes two words: AWS knows the first, a local engine the second."""

    inner: Outbox
    watch: Watch

    def publish(self, events: Sequence[Attributes]) -> None:
        self.watch.note("EventBus", "events:PutEvents")
        self.inner.publish(events)

    def to_queue(self, arn: str, messages: Sequence[Message]) -> tuple[RefusedMessage, ...]:
        self.watch.note("SubscriptionTargets", "sqs:SendMessage", "sqs:SendMessageBatch")
        return self.inner.to_queue(arn, messages)

    def to_topic(self, arn: str, messages: Sequence[Message]) -> tuple[RefusedMessage, ...]:
        self.watch.note("SubscriptionTargets", "sns:Publish", "sns:PublishBatch")
        return self.inner.to_topic(arn, messages)


@dataclass(frozen=True)
class WatchedPost:
    inner: Post
    watch: Watch

    def send(self, connection_id: str, frame: bytes) -> None:
        self.watch.note("WebsocketAPI", "execute-api:ManageConnections")
        self.inner.send(connection_id, frame)

    def close(self, connection_id: str) -> None:
        self.watch.note("WebsocketAPI", "execute-api:ManageConnections")
        self.inner.close(connection_id)
