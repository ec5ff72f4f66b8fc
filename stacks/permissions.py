"""
What a template allows that another does not: statement by statement, whatever the layout. Pure.

It errs towards telling: what cannot be compared counts as new.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stacks.fragments import Resource, Template


@dataclass(frozen=True)
class Widening:
    """Something that will be allowed and was not."""

    logical_id: str
    grant: str
    why: str


ALL_BUT = "all but "
"""How `NotAction`, `NotResource` and `NotPrincipal` are written: the whole of it is no pattern."""


@dataclass(frozen=True)
class Grant:
    """One action on one resource by one principal, under one condition; a statement is many of these."""

    action: str
    resource: str
    principal: str = ""
    condition: str = ""
    is_denial: bool = False

    def covers(self, other: "Grant") -> bool:
        """Say whether whatever *other* speaks of, this speaks of too."""
        return (
            self.is_denial == other.is_denial
            and _pattern_covers(self.action.lower(), other.action.lower())
            and _pattern_covers(self.resource, other.resource)
            and _pattern_covers(self.principal, other.principal)
            and self.condition in {"", other.condition}
        )

    def __str__(self) -> str:
        principal = f"{self.principal}: " if self.principal else ""
        condition = f" if {self.condition}" if self.condition else ""
        return f"{principal}{self.action} on {self.resource}{condition}"


def permissions_widened(deployed: Template, wanted: Template) -> tuple[Widening, ...]:
    """
    List what *wanted* allows and *deployed* does not, resource by resource.

    Statements are compared by what they say, not by where they stand: splitting, merging, sorting or renaming
    them widens nothing. Both templates have their parameters filled in (`with_parameters`).
    """
    before, after = _grants_by_owner(deployed), _grants_by_owner(wanted)
    return tuple(
        widening
        for owner, grants in sorted(after.items())
        for widening in _widenings(owner, before.get(owner), grants, is_kept=owner in wanted.get("Resources", {}))
    )


def _grants_by_owner(template: Template) -> dict[str, list[Grant]]:
    return {
        logical_id: list(_grants(resource))
        for logical_id, resource in template.get("Resources", {}).items()
        if resource["Type"] in POLICIES
    }


def _widenings(owner: str, before: list[Grant] | None, after: list[Grant], *, is_kept: bool) -> Iterator[Widening]:
    for grant in after:
        if not grant.is_denial and not any(old.covers(grant) for old in before or ()):
            yield Widening(owner, str(grant), "new" if before is None else _widening_why(before, grant))
    for old in before or ():
        if is_kept and old.is_denial and not any(grant.covers(old) for grant in after):
            yield Widening(owner, str(old), "denial removed")


def _widening_why(before: list[Grant], grant: Grant) -> str:
    """Say what about *grant* is new, the least surprising reason first."""
    allowed = [old for old in before if not old.is_denial]
    same_action = [old for old in allowed if _pattern_covers(old.action.lower(), grant.action.lower())]
    if any(_pattern_covers(old.resource, grant.resource) and old.principal == grant.principal for old in same_action):
        return "condition removed"
    if any(old.principal == grant.principal for old in same_action):
        return "broader resource"
    return "new principal" if same_action else "new action"


def _pattern_covers(pattern: str, text: str) -> bool:
    """Match as IAM does, `*` any characters and `?` any one; where *text* has a `*` itself, only a `*` covers it."""
    if pattern == text or pattern.startswith(ALL_BUT):
        return pattern == text
    translated = "".join({"*": ".*", "?": "[^*]"}.get(char, re.escape(char)) for char in pattern)
    return re.fullmatch(translated, text, re.DOTALL) is not None


POLICIES: dict[str, tuple[str, ...]] = {
    "AWS::IAM::Role": ("AssumeRolePolicyDocument",),
    "AWS::IAM::Policy": ("PolicyDocument",),
    "AWS::IAM::ManagedPolicy": ("PolicyDocument",),
    "AWS::S3::BucketPolicy": ("PolicyDocument",),
    "AWS::SQS::QueuePolicy": ("PolicyDocument",),
    "AWS::SNS::TopicPolicy": ("PolicyDocument",),
    "AWS::Events::EventBusPolicy": ("Statement",),
    "AWS::KMS::Key": ("KeyPolicy",),
    "AWS::DynamoDB::Table": ("ResourcePolicy",),
    "AWS::Lambda::Permission": (),
}
"""Where permissions are written, by type; a role has inline and managed policies beside its trust."""


def _grants(resource: Resource) -> Iterator[Grant]:
    properties = resource.get("Properties", {})
    for name in POLICIES[resource["Type"]]:
        yield from _document_grants(properties.get(name, {}))
    for inline in properties.get("Policies", []):
        yield from _document_grants(inline["PolicyDocument"])
    for arn in properties.get("ManagedPolicyArns", []):
        yield Grant(f"every action of {_text(arn)}", "*")
    if resource["Type"] == "AWS::IAM::Role" and "PermissionsBoundary" in properties:
        # A boundary allows nothing and takes away all that is outside of it.
        boundary = _text(properties["PermissionsBoundary"])
        yield Grant(f"everything beyond {boundary}", "*", is_denial=True)
    if resource["Type"] == "AWS::Lambda::Permission":
        source = {key: properties[key] for key in ("SourceArn", "SourceAccount") if key in properties}
        condition = _text(source) if source else ""
        function = _text(properties["FunctionName"])
        yield Grant(properties["Action"], function, _text(properties["Principal"]), condition)


def _document_grants(document: Mapping[str, Any]) -> Iterator[Grant]:
    statements = document.get("PolicyDocument", document).get("Statement", document if "Action" in document else [])
    for statement in statements if isinstance(statements, list) else [statements]:
        condition = _text(statement["Condition"]) if statement.get("Condition") else ""
        for action in _listed(statement, "Action"):
            for resource in _listed(statement, "Resource", otherwise="itself"):
                for principal in _principals(statement):
                    yield Grant(action, resource, principal, condition, is_denial=statement["Effect"] == "Deny")


def _listed(statement: Mapping[str, Any], name: str, otherwise: str = "") -> list[str]:
    """Read a member that may be one value or many, or be turned round (`NotAction`), which only equals itself."""
    if f"Not{name}" in statement:
        return [ALL_BUT + _text(statement[f"Not{name}"])]
    value = statement.get(name, otherwise)
    return [_text(each) for each in value] if isinstance(value, list) else [_text(value)]


def _principals(statement: Mapping[str, Any]) -> list[str]:
    match statement.get("Principal"):
        case None if "NotPrincipal" in statement:
            return [ALL_BUT + _text(statement["NotPrincipal"])]
        case None:
            return [""]
        case dict() as kinds:
            return [
                f"{kind} {_text(each)}"
                for kind, value in kinds.items()
                for each in (value if isinstance(value, list) else [value])
            ]
        case value:
            return [_text(value)]


def _text(value: Any) -> str:
    """Write a value as one line; the usual ways to name another resource (Ref, GetAtt, Sub) read the same."""
    match value:
        case str():
            return value
        case {"Ref": str(name)}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [str(name), str(attribute)]}:
            return f"${{{name}.{attribute}}}"
        case {"Fn::Sub": str(pattern)}:
            return pattern
        case {"Fn::Sub": [str(pattern), dict(names)]}:
            return re.sub(r"\$\{(\w+)\}", lambda found: _text(names.get(found[1], found[0])), pattern)
        case _:
            return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    """Write every name of another resource inside *value* as a line, too."""
    match value:
        case {"Ref": _} | {"Fn::GetAtt": _} | {"Fn::Sub": _}:
            return _text(value)
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case _:
            return value
