"""
Plan and apply, over CloudFormation's own change sets; `destroy` is the way back.

    holdfast-artifacts   the bucket                   stacks/artifacts.yaml
    holdfast-base        what all services share      stacks/base.yaml
    holdfast-<service>   one stack each               functions/<service> + stacks/<service>.yaml

in this order. What is shown is what is applied: a plan holds the change sets themselves, and all of them
are made before anything is deployed. That is possible for a service whose layers are not there yet because
a layer is named by its content: the first version of such a name is 1, so its address is known.

The same code serves AWS and the local engine. What the engine cannot do is left out of the template
(`differences.for_local_engine`); here only its gateway responses are put right.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from stacks import (
    ROOT,
    Outdated,
    Refused,
    bundle,
    changes,
    cloudformation,
    differences,
    fragments,
    layers,
    permissions,
    template,
    tokens,
    websockets,
)
from stacks import home as default_home
from stacks.bundle import STAGE
from stacks.changes import Change, Kind, StackPlan, StackSource
from stacks.destroy import Kept, destroy
from stacks.layers import Archive, Platform
from stacks.local.running import Home, load
from stacks.services import ARTIFACTS_STACK, BASE_STACK
from stacks.target import Place, Report, Target

__all__ = ["Kept", "Report", "Target", "apply", "deploy", "destroy", "discard", "plan", "planned"]

EVENT_BUS = "holdfast"
"""The bus in stacks/base.yaml."""


PLANS_MAX = 2
"""How often `deploy` plans: once more if a layer came out as another version than its first."""
NAMES = frozenset({"TableName", "BucketName"})
"""The properties by which a table or a bucket that was kept is found again."""


# The verbs


def plan(
    target: Target, services: Sequence[str], report: Report, *, home: Path | None = None, root: Path = ROOT
) -> list[StackPlan]:
    """
    Work out what deploying *services* would do, the shared stacks first, and change nothing.

    The change sets then wait for `apply`, or for `discard`, which leaves nothing of them (`planned` does that by
    itself).

    Raises:
        BuildFailed: a layer or a service cannot be built.
        DeployFailed: CloudFormation refuses a template, or a stack is in a state that a person has to look at.
    """
    return plan_sources(target, sources(target, services, report, home=home, root=root), report)


@contextlib.contextmanager
def planned(target: Target, services: Sequence[str], report: Report, **places: Any) -> Iterator[list[StackPlan]]:
    """Plan, and afterwards leave nothing of what was not applied."""
    plans = plan(target, services, report, **places)
    try:
        yield plans
    finally:
        discard(target, plans)


def apply(target: Target, plans: Sequence[StackPlan], report: Report, *, typed: Collection[str] = ()) -> dict[str, str]:
    """
    Execute the change sets in *plans*, and give each service's address as CloudFormation tells it.

    *typed* are the stack names that a person has typed: nothing that holds data is replaced or removed without.

    Raises:
        Refused: a name was not typed; nothing has been changed.
        Outdated: a shared stack gave something else than was foreseen; what came after it has not been changed.
        DeployFailed: CloudFormation rolled a stack back; those before it stand.
    """
    missing = [name for name in changes.names_to_type(plans) if name not in typed]
    if missing:
        raise Refused(
            f"{' and '.join(missing)} would lose data: {changes.losses(plans, missing)}.",
            "./holdfast plan shows which; ./holdfast deploy asks for the stack's name to be typed.",
        )
    for each in plans:
        _apply_one(target, each, report)
        if each.stack == BASE_STACK:
            tokens.publish_keys(target)
            _check_layers(target, plans)
    return {each.source.service: _address(target, each.stack) for each in plans if each.source.service}


def deploy(
    target: Target, services: Sequence[str], report: Report, *, home: Path | None = None, root: Path = ROOT
) -> dict[str, str]:
    """
    Plan and apply without asking; what would lose data is still refused.

    Raises:
        Refused, DeployFailed, BuildFailed: as `plan` and `apply` do.
    """
    for attempt in range(1, PLANS_MAX + 1):
        with planned(target, services, report, home=home, root=root) as plans:
            try:
                return apply(target, plans, report)
            except Outdated:
                if attempt == PLANS_MAX:
                    raise
    raise AssertionError("The last attempt returns or raises.")


def discard(target: Target, plans: Sequence[StackPlan]) -> None:
    """Remove the change sets that were not executed, and the empty stacks that were made only to plan."""
    for each in plans:
        if each.change_set_id:
            cloudformation.discard_change_set(target, each.change_set_id)


# What the stacks shall be


def sources(
    target: Target, services: Sequence[str], report: Report, *, home: Path | None = None, root: Path = ROOT
) -> list[StackSource]:
    """Build everything, and say what every stack shall be: its template, its parameters, its files."""
    home = home or default_home()
    place = target.place()
    report.step("Building the layers")
    kernel = layers.kernel(home, root)
    dependencies = layers.dependencies(home, Platform.LOCAL if target.is_local else Platform.AWS, root)
    values = {
        "ArtifactBucket": f"holdfast-artifacts-{place.account}-{place.region}",
        "AlarmTopic": place.arn("sns", "holdfast-alarms"),
        "EventBus": EVENT_BUS,
        "RevocationsTable": tokens.REVOCATIONS_TABLE,
        "Runtime": f"python{layers.python_version()}",
        "KernelLayerName": _layer_name(kernel),
        "KernelLayerKey": kernel.key,
        "DependenciesLayerName": _layer_name(dependencies),
        "DependenciesLayerKey": dependencies.key,
    }
    values |= _layer_addresses(target, place, values)
    if target.is_local:
        values |= _local_values(place)
    shared = [
        _source(ARTIFACTS_STACK, fragments.read("artifacts", root), values),
        _source(BASE_STACK, fragments.read("base", root), values, (kernel, dependencies)),
    ]
    return shared + [_service_source(target, service, values, report, home=home, root=root) for service in services]


def _local_values(place: Place) -> dict[str, str]:
    """Give what is otherwise on a laptop: data that may go tomorrow, and a developer whose queues are all their own."""
    return {
        "AnchorRetentionDays": "1",
        "SubscriptionTargets": ",".join((place.arn("sqs", "*"), place.arn("sns", "*"))),
    }


def _service_source(
    target: Target, service: str, values: dict[str, str], report: Report, *, home: Path, root: Path
) -> StackSource:
    report.step(f"Bundling {service}")
    bundled = bundle.bundle(service, home, root)
    merged = template.merge(bundled, fragments.read(service, root), root)
    at = websockets.parameters(service, target.endpoint_url, target.gateway_url or _gateway_url(target, home))
    values = {**values, **at, "CodeKey": bundled.code.key}
    return _source(f"holdfast-{service}", merged, values, (bundled.code,), service)


def _gateway_url(target: Target, home: Path) -> str | None:
    """Say where clients reach what runs in *home*, whoever deploys to it: the supervisor, or a command beside it."""
    running = load(Home(home)) if target.is_local else None
    return running.gateway_url if running else None


def _source(
    stack: str,
    wanted: fragments.Template,
    values: dict[str, str],
    uploads: tuple[Archive, ...] = (),
    service: str | None = None,
) -> StackSource:
    return StackSource(stack, service, wanted, template.parameters_of(wanted, values), uploads)


def _layer_name(layer: Archive) -> str:
    return f"holdfast-{layer.name}-{layer.digest}"


def _layer_addresses(target: Target, place: Place, values: dict[str, str]) -> dict[str, str]:
    """
    Say where each layer is, or will be once the base stack is applied.

    The base stack knows of a layer that it has. Another will be version 1 of a name nobody has used, unless it was
    there before and was removed; then `apply` finds out, and the next plan knows.
    """
    base = cloudformation.find_stack(target, BASE_STACK)
    addresses = {}
    for layer in ("KernelLayer", "DependenciesLayer"):
        name = values[f"{layer}Name"]
        is_there = base is not None and base.parameters.get(f"{layer}Name") == name
        known = base.outputs[f"{layer}Arn"] if base and is_there else place.arn("lambda", f"layer:{name}:1")
        addresses[f"{layer}Arn"] = known
    return addresses


# Plan


def plan_sources(target: Target, wanted: Sequence[StackSource], report: Report) -> list[StackPlan]:
    """Plan stacks that are described already; if one of them cannot be planned, nothing is left of the others."""
    plans: list[StackPlan] = []
    try:
        for source in wanted:
            report.step(f"Planning {source.stack}")
            plans.append(_plan_one(target, _sent(target, source)))
    except BaseException:
        discard(target, plans)
        raise
    return plans


def _sent(target: Target, source: StackSource) -> StackSource:
    """Leave out, only when it is sent there, what the local engine cannot do: stacks.local reads it from the source."""
    if not target.is_local:
        return source
    return replace(source, template=differences.for_local_engine(source.template))


def _plan_one(target: Target, source: StackSource) -> StackPlan:
    stack = cloudformation.find_stack(target, source.stack)
    deployed = cloudformation.deployed_template(target, source.stack) if stack else {}
    if stack is None and template.is_large(source.template) and not cloudformation.find_stack(target, ARTIFACTS_STACK):
        # There is no bucket yet to send it by. A stack that does not exist can only be added to.
        change_set_id = None
        told = tuple(Change(Kind.ADD, name, each["Type"]) for name, each in source.template["Resources"].items())
    else:
        change_set_id = _create_change_set(target, source, is_new=stack is None)
        described = cloudformation.described_changes(target, change_set_id) if change_set_id else []
        told = tuple(changes.change_of(each) for each in described)
    before = fragments.with_parameters(deployed, stack.parameters if stack else {})
    after = fragments.with_parameters(source.template, source.parameters)
    return StackPlan(
        source=source,
        is_new=stack is None,
        change_set_id=change_set_id,
        changes=told,
        permissions_widened=permissions.permissions_widened(before, after),
        data_at_risk=changes.data_at_risk(told, before, after),
    )


def _create_change_set(target: Target, source: StackSource, *, is_new: bool) -> str | None:
    """
    Make a stack's change set. A new stack takes over what its predecessor has kept.

    It is asked for only then, since CloudFormation's rules for it are narrower.
    """
    if is_new:
        named = _named_in_so_many_letters(target, source)
        kept = any(
            cloudformation.is_kept(target, resource["Type"], name)
            for resource in named["Resources"].values()
            if resource.get("DeletionPolicy") == "Retain"
            for key, name in resource["Properties"].items()
            if key in NAMES
        )
        if kept:
            source = replace(source, template=named)
            return cloudformation.create_change_set(target, source, is_new=True, adopts=True)
    return cloudformation.create_change_set(target, source, is_new=is_new)


def _named_in_so_many_letters(target: Target, source: StackSource) -> fragments.Template:
    """Fill parameters in, and AWS's own where a name is worked out of them: only what is spelled out can be found."""
    filled = fragments.with_parameters(source.template, source.parameters)
    here = target.place().parameters
    for resource in filled["Resources"].values():
        properties = resource.get("Properties", {})
        names = {key: properties[key] for key in NAMES & properties.keys()}
        properties |= fragments.with_parameters(names, here)
    return filled


# Apply


def _apply_one(target: Target, each: StackPlan, report: Report) -> None:
    if not each.changes:
        report.step(f"{each.stack}: no changes")
        return
    for archive in each.source.uploads:
        _upload(target, archive, each.source.parameters["ArtifactBucket"], report)
    change_set_id = each.change_set_id or _create_change_set(target, each.source, is_new=each.is_new)
    if change_set_id is None:
        raise Outdated(f"{each.stack} has been deployed since it was planned.", "Run ./holdfast deploy again.")
    report.step(f"{each.stack}: applying {len(each.changes)} change{'s' * (len(each.changes) != 1)}")
    stack = cloudformation.execute(target, each.stack, change_set_id)
    if target.is_local and "RestAPIId" in stack.outputs:
        _put_gateway_responses(target, stack.outputs["RestAPIId"], each.source.template)


def _upload(target: Target, archive: Archive, bucket: str, report: Report) -> None:
    """Upload a file under the name of its content, unless it is there."""
    s3 = target.client("s3")
    try:
        s3.head_object(Bucket=bucket, Key=archive.key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:  # noqa: PLR2004 - HEAD has no error code to ask
            raise
        report.step(f"Uploading {archive.name} ({archive.path.stat().st_size / 1e6:.1f} MB)")
        s3.put_object(Bucket=bucket, Key=archive.key, Body=archive.path.read_bytes())


def _check_layers(target: Target, plans: Sequence[StackPlan]) -> None:
    """
    Make sure that the layers are where the services' change sets say.

    Raises:
        Outdated: they are not.
    """
    base = cloudformation.find_stack(target, BASE_STACK)
    outputs = base.outputs if base else {}
    for each in plans:
        for layer in ("KernelLayerArn", "DependenciesLayerArn"):
            if each.changes and each.source.parameters.get(layer, outputs.get(layer)) != outputs.get(layer):
                raise Outdated(
                    f"{layer} is {outputs.get(layer)}, and {each.stack} was planned with another.",
                    "Run ./holdfast deploy again: the next plan knows it.",
                )


def _put_gateway_responses(target: Target, api_id: str, wanted: fragments.Template) -> None:
    """Give the local engine's API its own refusals: it does not read them where AWS does, in the API's definition."""
    client = target.client("apigateway")
    for kind, response in wanted["Resources"][template.API]["Properties"]["GatewayResponses"].items():
        headers = response["ResponseParameters"]["Headers"]
        client.put_gateway_response(
            restApiId=api_id,
            responseType=kind,
            responseParameters={f"gatewayresponse.header.{name}": value for name, value in headers.items()},
            responseTemplates=response["ResponseTemplates"],
            statusCode=str(response["StatusCode"]),
        )
    client.create_deployment(restApiId=api_id, stageName=STAGE)


def _address(target: Target, stack_name: str) -> str:
    stack = cloudformation.find_stack(target, stack_name)
    return stack.outputs["EndpointURL"].rstrip("/") if stack else ""
