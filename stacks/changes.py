"""
What a change set would do, and who has to agree: pure functions over templates and CloudFormation's answers.

CloudFormation says what is added, changed, replaced and removed. It does not say what that means, so two
things are worked out from the template that is deployed and the one that would be:

* **permissions widened** (`permissions`): something is allowed that was not;
* **data at risk** (here): what holds data is replaced or removed, or loses a protection.

Both err towards telling. Where CloudFormation itself cannot tell whether a resource will be replaced
("Conditional"), the properties that replace a data holder are in a table below; the local engine answers
so more often than AWS does, since it knows fewer types.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from stacks.fragments import Resource, Template
from stacks.layers import Archive
from stacks.permissions import Widening


class Kind(StrEnum):
    """What happens to one resource."""

    ADD = "add"
    CHANGE = "change"
    REPLACE = "replace"
    DELETE = "delete"


@dataclass(frozen=True)
class Change:
    """One resource that a change set touches, and why."""

    kind: Kind
    logical_id: str
    type: str
    physical_id: str | None = None
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Risk:
    """What may happen to data; `is_loss` if a data holder is replaced or removed."""

    logical_id: str
    type: str
    what: str
    is_loss: bool


@dataclass(frozen=True)
class StackSource:
    """What a stack shall be: its template and parameters, and the files that have to be in the bucket for it."""

    stack: str
    service: str | None
    template: Template
    parameters: Mapping[str, str]
    uploads: tuple[Archive, ...] = ()


@dataclass(frozen=True)
class StackPlan:
    """One stack's change set, read: nothing of it has happened yet."""

    source: StackSource
    is_new: bool
    change_set_id: str | None
    """None if nothing changes, or if the template can only be sent once the artifact bucket exists."""
    changes: tuple[Change, ...] = ()
    permissions_widened: tuple[Widening, ...] = ()
    data_at_risk: tuple[Risk, ...] = ()

    @property
    def stack(self) -> str:
        return self.source.stack

    def of_kind(self, kind: Kind) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.kind == kind)


def has_changes(plans: Sequence[StackPlan]) -> bool:
    """Say whether there is anything to apply, and so anything to ask."""
    return any(plan.changes for plan in plans)


def names_to_type(plans: Sequence[StackPlan]) -> tuple[str, ...]:
    """
    List the stacks whose names have to be typed before *plans* may be applied.

    Those are the stacks that replace or remove what holds data. `--yes` answers the ordinary question and
    never this one.
    """
    return tuple(plan.stack for plan in plans if any(risk.is_loss for risk in plan.data_at_risk))


def losses(plans: Sequence[StackPlan], stacks: Collection[str]) -> str:
    """Name what *stacks* would lose, and how."""
    risks = (risk for plan in plans if plan.stack in stacks for risk in plan.data_at_risk if risk.is_loss)
    return "; ".join(f"{risk.logical_id} ({risk.type}): {risk.what}" for risk in risks)


def is_confirmed(plans: Sequence[StackPlan], *, yes: bool, typed: Collection[str]) -> bool:
    """Say whether *plans* may be applied: the question was answered, and every name that has to be typed was."""
    if not has_changes(plans):
        return True
    return yes and set(names_to_type(plans)) <= set(typed)


# What CloudFormation says


DATA_HOLDERS: dict[str, tuple[str, ...]] = {
    "AWS::DynamoDB::Table": ("KeySchema", "TableName"),
    "AWS::DynamoDB::GlobalTable": ("KeySchema", "TableName"),
    "AWS::S3::Bucket": ("BucketName", "ObjectLockEnabled"),
    "AWS::KMS::Key": ("KeySpec", "KeyUsage", "MultiRegion", "Origin"),
    "AWS::SQS::Queue": ("QueueName", "FifoQueue"),
    "AWS::SecretsManager::Secret": ("Name",),
}
"""
The types that hold data (a key holds all that it encrypts or has signed), with the properties that replace them.

From "Update requires: Replacement" in CloudFormation's resource reference.
"""

CAUSES = {
    "DirectModification": "in the template",
    "ParameterReference": "through a parameter",
    "ResourceReference": "through a resource that is replaced",
    "ResourceAttribute": "through a resource that changes",
    "Automatic": "by CloudFormation",
}
"""`ChangeSource` of a change set's details, in words."""


def change_of(described: Mapping[str, Any]) -> Change:
    """Read one `ResourceChange` of DescribeChangeSet."""
    resource_type = described["ResourceType"]
    details = [(each["Target"], each) for each in described.get("Details", [])]
    changed = {target.get("Name", target.get("Attribute", "")) for target, _ in details}
    may_replace = described.get("Replacement") == "Conditional"
    match described["Action"]:
        case "Add" | "Import":
            kind = Kind.ADD
        case "Remove":
            kind = Kind.DELETE
        case _ if described.get("Replacement") == "True":
            kind = Kind.REPLACE
        case _ if may_replace and changed & set(DATA_HOLDERS.get(resource_type, ())):
            kind = Kind.REPLACE
        case _:
            kind = Kind.CHANGE
    why = sorted({_why(target, detail) for target, detail in details})
    if kind is Kind.CHANGE and may_replace and resource_type not in DATA_HOLDERS:
        why.append("may be replaced: CloudFormation cannot tell before it does it")
    if described["Action"] == "Import":
        why.append("exists already: it is taken over with all that it holds")
    if "Retain" in described.get("PolicyAction", ""):
        why.append("what is there now is kept, and no stack owns it any more")
    return Change(kind, described["LogicalResourceId"], resource_type, described.get("PhysicalResourceId"), tuple(why))


def _why(target: Mapping[str, Any], detail: Mapping[str, Any]) -> str:
    name = target.get("Name") or target.get("Attribute", "")
    cause = CAUSES.get(detail.get("ChangeSource", ""), "")
    entity = detail.get("CausingEntity")
    return " ".join(part for part in (name, cause, f"({entity})" if entity else "") if part)


# Data at risk


def data_at_risk(changes: Sequence[Change], deployed: Template, wanted: Template) -> tuple[Risk, ...]:
    """
    Say what *changes* may cost: losses first, then protections that end.

    Both templates have their parameters filled in (`with_parameters`).
    """
    losses = [_loss(change) for change in changes if change.type in DATA_HOLDERS]
    return (*(loss for loss in losses if loss), *_protections_lost(deployed, wanted))


def _loss(change: Change) -> Risk | None:
    match change.kind:
        case Kind.REPLACE:
            what = "is replaced by a new and empty one"
        case Kind.DELETE:
            what = "is removed from the stack"
        case _:
            return None
    return Risk(change.logical_id, change.type, what, is_loss=True)


Weaker = Callable[[Any, Any], bool]
"""Whether the second value protects less than the first."""


def _is_off(before: Any, after: Any) -> bool:
    return bool(before) and not after


def _is_shorter(before: Any, after: Any) -> bool:
    """Compare how long things are kept; no value means for ever, and a value that is worked out later is not known."""
    if after is None or after == before:
        return False
    known = isinstance(before, int | float | str) and isinstance(after, int | float | str)
    return not known or float(after) < float(before)


def _no_longer_retained(before: Any, after: Any) -> bool:
    return before in {"Retain", "RetainExceptOnCreate"} and after not in {"Retain", "RetainExceptOnCreate"}


def _begins_to_delete(before: Any, after: Any) -> bool:
    return after is not None and after != before


def _is_no_longer_versioned(before: Any, after: Any) -> bool:
    return bool(before == "Enabled" and after != "Enabled")


def _is_another_lock(before: Any, after: Any) -> bool:
    """COMPLIANCE holds against everybody, GOVERNANCE against those who may not lift it."""
    return before is not None and after not in (before, "COMPLIANCE")


def _is_locked_for_less(before: Any, after: Any) -> bool:
    # Without any lock it has no mode either, which is told there.
    return before is not None and _is_shorter(before, after)


def _is_open(before: Any, after: Any) -> bool:
    closed, still_closed = before or {}, after or {}
    return any(closed[door] and not still_closed.get(door) for door in closed)


PROTECTIONS: tuple[tuple[str, tuple[str, ...], Weaker, str], ...] = (
    ("", ("DeletionPolicy",), _no_longer_retained, "is deleted with its stack from now on"),
    ("", ("UpdateReplacePolicy",), _no_longer_retained, "is deleted when it is replaced from now on"),
    ("AWS::DynamoDB::Table", ("DeletionProtectionEnabled",), _is_off, "loses its deletion protection"),
    (
        "AWS::DynamoDB::Table",
        ("PointInTimeRecoverySpecification", "PointInTimeRecoveryEnabled"),
        _is_off,
        "loses point-in-time recovery, and with it the last 35 days",
    ),
    ("AWS::DynamoDB::Table", ("SSESpecification", "SSEEnabled"), _is_off, "loses its KMS encryption"),
    (
        "AWS::DynamoDB::Table",
        ("TimeToLiveSpecification", "AttributeName"),
        _begins_to_delete,
        "has its rows deleted by another attribute from now on",
    ),
    ("AWS::S3::Bucket", ("VersioningConfiguration", "Status"), _is_no_longer_versioned, "is no longer versioned"),
    ("AWS::S3::Bucket", ("BucketEncryption",), _is_off, "loses its encryption setting"),
    (
        "AWS::S3::Bucket",
        ("ObjectLockConfiguration", "Rule", "DefaultRetention", "Mode"),
        _is_another_lock,
        "locks new objects less firmly, or no longer",
    ),
    (
        "AWS::S3::Bucket",
        ("ObjectLockConfiguration", "Rule", "DefaultRetention", "Days"),
        _is_locked_for_less,
        "locks new objects for a shorter time",
    ),
    ("AWS::S3::Bucket", ("PublicAccessBlockConfiguration",), _is_open, "may be opened to everybody from now on"),
    ("AWS::S3::Bucket", ("LifecycleConfiguration",), _begins_to_delete, "has another lifecycle: objects may expire"),
    ("AWS::KMS::Key", ("EnableKeyRotation",), _is_off, "is no longer rotated"),
    ("AWS::KMS::Key", ("PendingWindowInDays",), _is_shorter, "can be destroyed sooner"),
    ("AWS::Logs::LogGroup", ("RetentionInDays",), _is_shorter, "keeps its logs for a shorter time"),
    ("AWS::SQS::Queue", ("MessageRetentionPeriod",), _is_shorter, "keeps its messages for a shorter time"),
)
"""
What protects data: the type ("" for all), where it is set, whether a change weakens it, and what that means.

A policy is an attribute of the resource; everything else is one of its properties.
"""


def _protections_lost(deployed: Template, wanted: Template) -> Iterator[Risk]:
    resources = wanted.get("Resources", {})
    for logical_id, before in deployed.get("Resources", {}).items():
        after = resources.get(logical_id)
        if after is None or after["Type"] != before["Type"]:
            continue
        for resource_type, path, is_weaker, what in PROTECTIONS:
            if resource_type in {"", before["Type"]} and is_weaker(_at(before, path), _at(after, path)):
                yield Risk(logical_id, before["Type"], what, is_loss=False)


def _at(resource: Resource, path: tuple[str, ...]) -> Any:
    value: Any = resource if path[0].endswith("Policy") else resource.get("Properties", {})
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
