"""The shared stack itself: what everybody relies on while it runs."""

import json
from pathlib import Path

import httpx
import pytest

from stacks import cloudformation, deploy
from stacks.local import clients, processes
from stacks.local import stack as commands
from stacks.local.running import Home
from stacks.services import SERVICES
from stacks.target import Target
from tests.local.conftest import LocalStack, Printed


def test_status_is_ready_when_every_service_answers(stack: LocalStack):
    status = commands.status(stack.home)

    assert status.ready
    assert {name for name, service in status.services.items() if service.healthy} == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_describes_itself_at_its_stable_address(stack: LocalStack, service: str):
    description = httpx.get(f"{stack.url(service)}/openapi.json").json()

    assert stack.url(service) == f"{stack.running.gateway_url}/{service}"
    assert description["openapi"].startswith("3.1")


def test_what_is_secret_is_readable_by_its_owner_alone(stack: LocalStack):
    for file in (Home(stack.home).run_file, Path(stack.running.token_file)):
        assert file.stat().st_mode & 0o077 == 0


def test_everything_listens_on_loopback_only(stack: LocalStack):
    listening = Path("/proc/net/tcp")
    if not listening.exists():
        pytest.skip("needs /proc")
    ports = {
        int(json.loads(Home(stack.home).run_file.read_text())["gateway_url"].rpartition(":")[2]),
        int(stack.running.engine.endpoint_url.rpartition(":")[2]),
    }
    addresses = set()
    for line in listening.read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        address, _, port = local.partition(":")
        if state == processes.LISTEN_STATE and int(port, 16) in ports:
            addresses.add(address)

    assert addresses == {"0100007F"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_command_beside_the_stack_deploys_for_the_same_addresses(stack: LocalStack, service: str):
    target = Target(clients.session(), stack.running.engine.endpoint_url, is_local=True)

    wanted = deploy.sources(target, [service], Printed(), home=stack.home)[-1].parameters
    deployed = cloudformation.find_stack(target, f"holdfast-{service}")

    assert deployed is not None
    addresses = {name for name in wanted if name.startswith("Websocket")}
    assert {name: wanted[name] for name in addresses} == {name: deployed.parameters[name] for name in addresses}
    assert f"ws://{stack.running.gateway_url.removeprefix('http://')}/{service}/ws" in wanted.values()
