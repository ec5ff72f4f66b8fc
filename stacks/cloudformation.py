"""
CloudFormation, as far as Holdfast speaks it: change sets, waits with an end, and reasons.

An execution either ends as planned or raises with what CloudFormation itself gave as the reasons. A new
stack that cannot be made is removed again by CloudFormation, so the next attempt starts from nothing.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from stacks import DeployFailed, Outdated
from stacks.changes import StackSource
from stacks.fragments import Template
from stacks.target import Target
from stacks.template import is_large, text

T = TypeVar("T")

CHANGE_SET_SECONDS_MAX = 300.0
STACK_SECONDS_MAX = 1_800.0
FIRST_POLL_SECONDS = 0.05
LONGEST_POLL_SECONDS = 5.0
PAGES_MAX = 100
"""Of any listing: a stack has at most 500 resources."""
REASONS_MAX = 5

ABSENT = {"REVIEW_IN_PROGRESS", "DELETE_COMPLETE"}
"""A stack that was only ever planned, or is gone."""
AT_REST = {
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
}
"""A stack that takes a change set; any other has to be looked at by a person."""
DONE = {"CREATE_COMPLETE", "UPDATE_COMPLETE"}
EMPTY = ("didn't contain changes", "No updates are to be performed")
"""A change set without changes fails, and says so with one of these."""


@dataclass(frozen=True)
class Stack:
    """A stack as it stands."""

    stack_id: str
    status: str
    parameters: dict[str, str]
    outputs: dict[str, str]


def find_stack(target: Target, name: str) -> Stack | None:
    """
    Find the stack *name* that can be updated; None if there is none, or it was only ever planned.

    Raises:
        DeployFailed: it is being changed, or an earlier change has left it half done.
    """
    stack = _describe(target, name)
    if stack is None or stack.status in ABSENT:
        return None
    if stack.status not in AT_REST:
        raise DeployFailed(
            f"The stack {name} is {stack.status}.",
            "Wait if somebody is deploying. Otherwise look at its events: after ROLLBACK_COMPLETE or DELETE_FAILED "
            "delete it, after UPDATE_ROLLBACK_FAILED run `aws cloudformation continue-update-rollback`.",
        )
    return stack


def _describe(target: Target, name: str) -> Stack | None:
    try:
        found = target.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return Stack(
        stack_id=found["StackId"],
        status=found["StackStatus"],
        parameters={each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])},
        outputs={each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])},
    )


def deployed_template(target: Target, name: str) -> Template:
    """Read the template that the stack was deployed with, as it was sent: before SAM and without defaults."""
    answer = target.client("cloudformation").get_template(StackName=name, TemplateStage="Original")
    template: Template = answer["TemplateBody"]
    return template


def create_change_set(target: Target, source: StackSource, *, is_new: bool, adopts: bool = False) -> str | None:
    """
    Make the change set that turns the stack into *source*; None if nothing would change.

    With *adopts*, what a stack before it has kept is taken over as it is, if the template names it in so many letters.

    Raises:
        DeployFailed: CloudFormation refuses the template.
    """
    client = target.client("cloudformation")
    with _sent(target, source) as body:
        try:
            created = client.create_change_set(
                StackName=source.stack,
                ChangeSetName=f"holdfast-{uuid.uuid4()}",
                ChangeSetType="CREATE" if is_new else "UPDATE",
                Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in sorted(source.parameters.items())],
                Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
                ImportExistingResources=adopts,
                # Its early validation can take what is to be adopted for a conflict of names.
                DisableValidation=adopts,
                **({"OnStackFailure": "DELETE"} if is_new else {}),
                **body,
            )
        except ClientError as error:
            raise _refused(source, error.response["Error"]["Message"]) from error
        answer = _until(
            lambda: client.describe_change_set(ChangeSetName=created["Id"]),
            lambda answer: not answer["Status"].endswith(("PENDING", "IN_PROGRESS")),
            CHANGE_SET_SECONDS_MAX,
            f"the change set of {source.stack}",
        )
    if answer["Status"] == "CREATE_COMPLETE":
        change_set_id: str = created["Id"]
        return change_set_id
    discard_change_set(target, created["Id"])
    reason = answer.get("StatusReason", "")
    if any(said in reason for said in EMPTY):
        return None
    raise _refused(source, reason)


def _refused(source: StackSource, reason: str) -> DeployFailed:
    name = source.service or source.stack.removeprefix("holdfast-")
    return DeployFailed(
        f"CloudFormation refuses the template of {source.stack}: {reason}",
        f"Run `cfn-lint stacks/{name}.yaml`, correct it, and repeat.",
    )


@contextlib.contextmanager
def _sent(target: Target, source: StackSource) -> Iterator[dict[str, str]]:
    """
    Hand a template over: in the request, or by S3 if it is too large for that.

    CloudFormation reads the object when it makes the change set, so it is removed again afterwards.
    """
    body = text(source.template)
    if not is_large(source.template):
        yield {"TemplateBody": body}
        return
    s3, bucket, key = target.client("s3"), source.parameters["ArtifactBucket"], f"templates/{uuid.uuid4()}.json"
    s3.put_object(Bucket=bucket, Key=key, Body=body.encode())
    try:
        yield {"TemplateURL": f"{s3.meta.endpoint_url}/{bucket}/{key}"}
    finally:
        s3.delete_object(Bucket=bucket, Key=key)


def is_kept(target: Target, resource_type: str, name: str) -> bool:
    """Say whether a table or a bucket of that name is there, whoever made it."""
    try:
        match resource_type:
            case "AWS::DynamoDB::Table":
                target.client("dynamodb").describe_table(TableName=name)
            case "AWS::S3::Bucket":
                target.client("s3").head_bucket(Bucket=name)
            case _:
                return False
    except ClientError as error:
        if error.response["Error"]["Code"] in {"ResourceNotFoundException", "404", "NoSuchBucket"}:
            return False
        raise
    return True


def described_changes(target: Target, change_set_id: str) -> list[Mapping[str, Any]]:
    """Read every resource change of a change set, page by page."""
    describe = target.client("cloudformation").describe_change_set
    pages = _pages(lambda token: describe(ChangeSetName=change_set_id, **token))
    return [change["ResourceChange"] for page in pages for change in page.get("Changes", [])]


def discard_change_set(target: Target, change_set_id: str) -> None:
    """
    Remove a change set that was not executed, and the empty stack it was made for if no other plan waits there.

    Discarding again, or after it was executed, does nothing.
    """
    client = target.client("cloudformation")
    try:
        described = client.describe_change_set(ChangeSetName=change_set_id)
    except client.exceptions.ChangeSetNotFoundException:
        return
    if described["ExecutionStatus"] not in {"AVAILABLE", "UNAVAILABLE"}:
        return
    stack_id = described["StackId"]
    client.delete_change_set(ChangeSetName=change_set_id)
    stack = _describe(target, stack_id)
    if stack and stack.status == "REVIEW_IN_PROGRESS" and not client.list_change_sets(StackName=stack_id)["Summaries"]:
        client.delete_stack(StackName=stack_id)


def execute(target: Target, stack_name: str, change_set_id: str) -> Stack:
    """
    Execute a change set and wait until its stack has come to rest.

    Raises:
        Outdated: another change set was executed since.
        DeployFailed: it was rolled back, or takes longer than STACK_SECONDS_MAX.
    """
    client = target.client("cloudformation")
    try:
        stack_id = client.describe_change_set(ChangeSetName=change_set_id)["StackId"]
    except client.exceptions.ChangeSetNotFoundException as error:
        # CloudFormation drops a stack's other change sets when it executes one.
        raise Outdated(f"{stack_name} has been deployed since it was planned.", "Run ./holdfast plan again.") from error
    adopts = any(change["Action"] == "Import" for change in described_changes(target, change_set_id))
    last_event = next(iter(_events(target, stack_id)), {}).get("EventId")
    # An empty table that a failed stack has made goes with it, or it would be in the next attempt's way. What was
    # adopted is not empty: then everything that is to be retained is retained.
    client.execute_change_set(ChangeSetName=change_set_id, StackName=stack_id, RetainExceptOnCreate=not adopts)
    stack = _at_rest(target, stack_id, stack_name)
    if stack.status not in DONE:
        reasons = "\n".join(f"  {reason}" for reason in _reasons(target, stack_id, last_event))
        raise DeployFailed(
            f"{stack_name} could not be deployed and was rolled back ({stack.status}):\n{reasons}",
            "Correct what it names, then ./holdfast plan shows what is left to do.",
        )
    return stack


def delete_stack(target: Target, stack: Stack, stack_name: str) -> None:
    """
    Delete a stack and wait until it is gone.

    Raises:
        DeployFailed: a resource would not go.
    """
    last_event = next(iter(_events(target, stack.stack_id)), {}).get("EventId")
    target.client("cloudformation").delete_stack(StackName=stack.stack_id)
    gone = _at_rest(target, stack.stack_id, stack_name)
    if gone.status != "DELETE_COMPLETE":
        reasons = "\n".join(f"  {reason}" for reason in _reasons(target, stack.stack_id, last_event))
        raise DeployFailed(
            f"{stack_name} could not be deleted ({gone.status}):\n{reasons}",
            "Correct what it names, then repeat.",
        )


def resources(target: Target, stack_name: str) -> dict[str, str]:
    """Map a stack's logical ids to the names that its resources have."""
    listing = target.client("cloudformation").list_stack_resources
    pages = _pages(lambda token: listing(StackName=stack_name, **token))
    return {
        each["LogicalResourceId"]: each["PhysicalResourceId"]
        for page in pages
        for each in page["StackResourceSummaries"]
        if "PhysicalResourceId" in each
    }


def _at_rest(target: Target, stack_id: str, stack_name: str) -> Stack:
    gone = Stack(stack_id, "DELETE_COMPLETE", {}, {})
    return _until(
        lambda: _describe(target, stack_id) or gone,
        lambda stack: not stack.status.endswith("IN_PROGRESS"),
        STACK_SECONDS_MAX,
        stack_name,
    )


def _reasons(target: Target, stack_id: str, last_event: str | None) -> list[str]:
    """
    List what failed since *last_event*, the root cause first.

    What failed first is why the rest was cancelled, and is told first; cancellations are left out.
    """
    failures = []
    for event in _events(target, stack_id):
        if event["EventId"] == last_event:
            break
        if event["ResourceStatus"].endswith("FAILED"):
            failures.append(event)
    told = [
        f"{event['LogicalResourceId']} ({event['ResourceType']}): {reason}"
        for event in reversed(failures)
        if "cancelled" not in (reason := event.get("ResourceStatusReason", "no reason given")).lower()
    ]
    if any("DescribeEvents" in reason for reason in told):
        told = [*_validation_reasons(target, stack_id), *told]
    return told[:REASONS_MAX] or ["CloudFormation gives no reason; look at the stack's events."]


def _validation_reasons(target: Target, stack_id: str) -> list[str]:
    """List what failed before anything was touched: a stack's events only say that it can be asked for elsewhere."""
    describe = target.client("cloudformation").describe_events
    pages = _pages(lambda token: describe(StackName=stack_id, Filters={"FailedEvents": True}, **token))
    events = [event for page in pages for event in page["OperationEvents"]]
    latest = events[0]["OperationId"] if events else None
    return [
        f"{event['LogicalResourceId']} ({event['ResourceType']}): {event['ValidationStatusReason']}"
        for event in events
        if event["EventType"] == "VALIDATION_ERROR" and event["OperationId"] == latest
    ]


def _events(target: Target, stack_id: str) -> Iterator[Mapping[str, Any]]:
    """Give a stack's events, the newest first."""
    describe = target.client("cloudformation").describe_stack_events
    for page in _pages(lambda token: describe(StackName=stack_id, **token)):
        yield from page["StackEvents"]


def _pages(ask: Callable[[dict[str, str]], Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    token: dict[str, str] = {}
    for _ in range(PAGES_MAX):
        page = ask(token)
        yield page
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}
    raise DeployFailed(
        f"CloudFormation's answer does not end after {PAGES_MAX} pages.", "Repeat; if it stays, look at the stack."
    )


def _until(ask: Callable[[], T], is_done: Callable[[T], bool], seconds_max: float, what: str) -> T:
    """Ask until it is done, ever more slowly."""
    ends = time.monotonic() + seconds_max
    wait = FIRST_POLL_SECONDS
    while not is_done(answer := ask()):
        if time.monotonic() > ends:
            raise DeployFailed(
                f"CloudFormation has not finished {what} after {seconds_max:.0f} s.",
                "It goes on by itself: look at the stack's events, and repeat when it has come to rest.",
            )
        time.sleep(wait)
        wait = min(wait * 1.5, LONGEST_POLL_SECONDS)
    return answer
