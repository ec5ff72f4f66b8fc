"""What the supervisor deploys: the base stack, the services, the keys, and a token for the developer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stacks.local import clients
from stacks.local.errors import CannotStart, Report
from stacks.local.profile import LocalProfile, resolved
from stacks.local.running import TENANT

TOKEN_SECONDS = 30 * 86_400
"""Every `up` makes a new one."""
SUBJECT = "developer"


@dataclass(frozen=True)
class Deployed:
    """What stands after a deployment."""

    api_urls: Mapping[str, str]
    """By service, as CloudFormation's outputs say."""
    profile: LocalProfile
    """What is left to do beside the engine, in physical names."""
    token: str
    websockets: Mapping[str, str] = field(default_factory=dict)
    """By service, where the engine answers its WebSockets; only those that have any."""


Deploy = Callable[[Path, str, Sequence[str], Report], Deployed]
"""Deploys services, from a home directory's caches, to an endpoint; safe to repeat, and quick when nothing changed."""


def deploy_services(home: Path, endpoint_url: str, services: Sequence[str], report: Report) -> Deployed:
    """
    Deploy what these services are now.

    Raises:
        StackError: something could not be built or deployed.
    """
    # Here, because they bring Chalice and boto3, and `status` and `down` have no need of them.
    from stacks import Refused, deploy, differences, fragments, tokens, websockets  # noqa: PLC0415
    from stacks.services import SERVICES  # noqa: PLC0415
    from stacks.target import Target  # noqa: PLC0415

    target = Target(session=clients.session(), endpoint_url=endpoint_url, is_local=True)
    try:
        api_urls = deploy.deploy(target, services, report, home=home)
    except Refused as refused:
        raise CannotStart(
            refused.what,
            "./holdfast reset starts afresh and forgets the local data; the checkout that made it still runs with it.",
        ) from refused
    profile, sockets = LocalProfile(), dict[str, str]()
    for source in deploy.sources(target, services, _Silence(), home=home):
        own = differences.local_differences(fragments.with_parameters(source.template, source.parameters))
        ids = physical_ids(target.client("cloudformation"), source.stack)
        profile += resolved(own, ids)
        upstream = websockets.upstream(ids, endpoint_url)
        if source.service and upstream:
            sockets[source.service] = upstream
    report.step("Making a token")
    scopes = [scope for name in services for scope in SERVICES[name].scopes]
    token = tokens.create_token(target, TENANT, SUBJECT, scopes, TOKEN_SECONDS)
    return Deployed(api_urls, profile, token, sockets)


def physical_ids(cloudformation: Any, stack: str) -> dict[str, str]:
    """List what a stack's logical ids are called outside of it."""
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    return {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for page in pages
        for resource in page["StackResourceSummaries"]
        # A resource that failed to be made has none.
        if "PhysicalResourceId" in resource
    }


class _Silence:
    """For work whose progress has been told once."""

    def step(self, text: str) -> None:
        pass
