"""A tenant of one's own on the running stack: nothing that other tests write can be seen, and nothing is left over."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast_client import Holdfast
from holdfast_client.audit import Audit
from stacks import tokens
from stacks.local import clients
from stacks.services import SERVICES
from stacks.target import Target
from tests.local.conftest import LocalStack

ROOT = Path(__file__).parents[3]
COMMAND_SECONDS_MAX = 120
ANSWER_SECONDS_MAX = 30
TOKEN_SECONDS = 3_600
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class OwnTenant:
    """Everything that somebody with a token can do."""

    stack: LocalStack
    name: str
    token: str
    audit: Audit
    http: httpx.Client
    """At the service's address, with the token."""

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the command line as somebody whose service is elsewhere."""
        return subprocess.run(
            command(*arguments),
            env=self._environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start the command line as `run` does; what it says is of no interest."""
        silent = subprocess.DEVNULL
        return subprocess.Popen(command(*arguments), env=self._environment, cwd=ROOT, stdout=silent, stderr=silent)

    @property
    def _environment(self) -> dict[str, str]:
        paths = (ROOT, ROOT / "clients/python", ROOT / "layers/holdfast/python")
        own = {"HOLDFAST_AUDIT_URL": self.stack.url("audit"), "HOLDFAST_TOKEN": self.token}
        return {**os.environ, **own, "PYTHONPATH": os.pathsep.join(map(str, paths))}

    def get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "holdfast_cli", *map(str, arguments)]


def token_for(stack: LocalStack, tenant: str, scopes: tuple[str, ...] = SERVICES["audit"].scopes) -> str:
    target = Target(session=clients.session(), endpoint_url=stack.running.engine.endpoint_url, is_local=True)
    return tokens.create_token(target, tenant, "tester", scopes, TOKEN_SECONDS)


@pytest.fixture(scope="module")
def tenant(stack: LocalStack, request: pytest.FixtureRequest) -> Iterator[OwnTenant]:
    """One tenant for a module's tests, which tell a story in their order or use streams of their own."""
    name = f"t-{os.getpid()}-{next(_NUMBERS)}"
    token = token_for(stack, name)
    url = stack.url("audit")
    headers = {"Authorization": f"Bearer {token}"}
    with (
        Holdfast(stack.running.gateway_url, token) as holdfast,
        httpx.Client(base_url=url, headers=headers, timeout=ANSWER_SECONDS_MAX, trust_env=False) as http,
    ):
        yield OwnTenant(stack, name, token, holdfast.audit, http)


def happened(number: int | str, **more: Any) -> dict[str, Any]:
    """Write a CloudEvent."""
    return {"specversion": "1.0", "id": str(number), "source": "urn:test", "type": "test.happened", **more}
