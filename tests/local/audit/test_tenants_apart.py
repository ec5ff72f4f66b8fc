"""Another tenant's token opens nothing, on any route and for any id; nor does one's own without the scope."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from holdfast_client.audit_queries import partition_of
from stacks.services import SERVICES
from tests.local.audit.conftest import ANSWER_SECONDS_MAX, OwnTenant, happened, token_for

STREAM = "accounts/1"
SUBJECT = "customers-eve"
SECRET = "what-only-this-tenant-knows"
NAMED = ("{stream}", "{subject}", "{rebuild_id}", "{name}")
"""What a route names that is somebody's."""
MAKES_ONES_OWN = {"PUT /v1/subscriptions/{name}"}
OPEN_TO_ALL = {"GET /openapi.json"}


@dataclass(frozen=True)
class Burglar:
    """Knows every id of somebody else, and has a valid token with every scope of another tenant."""

    victim: OwnTenant
    http: httpx.Client
    ids: dict[str, Any]
    bodies: dict[str, Any]

    def tries(self, method: str, path: str, described: Any, http: httpx.Client | None = None) -> httpx.Response:
        query = {}
        headers = {"Idempotency-Key": self.ids["key"]}
        body = self.bodies[f"{method} {path}"] if "requestBody" in described else None
        for parameter in described.get("parameters", []):
            name = parameter["name"]
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", str(self.ids[name]))
            elif parameter["in"] == "query" and (parameter.get("required") or name in ("stream", "subject")):
                query[name] = self.ids["plain_stream"] if name == "stream" else self.ids[name]
        return (http or self.http).request(method, path, params=query, headers=headers, json=body)


@pytest.fixture(scope="module")
def burglar(tenant: OwnTenant) -> Iterator[Burglar]:
    sealed = happened(1, subject=SUBJECT, shredkey=SUBJECT, data={"secret": SECRET})
    tenant.audit.append(
        STREAM, [sealed, happened(2, subject=SUBJECT, data={"open": SECRET})], None, idempotency_key="k"
    )
    assert list(tenant.audit.search(subject=SUBJECT, wait_for=(STREAM, 2)))
    rebuild = tenant.audit.rebuild("streams", SECRET, auto_flip=False, idempotency_key="k")
    subscription = {"target": "arn:aws:sqs:us-east-1:000000000000:ours", "types": [SECRET]}
    assert tenant.http.put("/v1/subscriptions/ours", json=subscription).status_code == 200
    cursor = tenant.get("/v1/events", type="test.happened", limit=1)["cursor"]
    ids = {
        "stream": STREAM.replace("/", "~"),
        "plain_stream": STREAM,
        "partition": partition_of(STREAM),
        "subject": SUBJECT,
        "rebuild_id": rebuild.rebuild_id,
        "seq": 1,
        "version": 1,
        "from": 1,
        "to": 1,
        "from_version": 0,
        "cursor": cursor,
        "key": "k",
        "name": "ours",
        "view": "streams",
    }
    appended = {"expected_version": 2, "events": [happened(3)]}
    reason = {"reason": "theirs"}
    bodies = {
        "POST /v1/streams/{stream}/events": appended,
        "POST /v1/commits": {"appends": [{**appended, "stream": STREAM}]},
        "POST /v1/rebuilds": {"view": "streams", "reason": "theirs", "auto_flip": True},
        "PUT /v1/subjects/{subject}/hold": reason,
        "DELETE /v1/subjects/{subject}/hold": reason,
        "POST /v1/subjects/{subject}/erasure": reason,
        "PUT /v1/subscriptions/{name}": {"target": "arn:aws:sqs:us-east-1:000000000000:theirs"},
        "PUT /v1/settings": {"record_reads": False},
    }
    headers = {"Authorization": f"Bearer {token_for(tenant.stack, f'{tenant.name}-x')}"}
    url = tenant.stack.url("audit")
    with httpx.Client(base_url=url, headers=headers, timeout=ANSWER_SECONDS_MAX, trust_env=False) as http:
        yield Burglar(tenant, http, ids, bodies)
        for client in (tenant.http, http):
            client.delete("/v1/subscriptions/ours")


def routes(tenant: OwnTenant) -> list[tuple[str, str, Any]]:
    """List every route; last those which make something of the caller's own, under whatever name."""
    found = [
        (method.upper(), path, described)
        for path, methods in tenant.get("/openapi.json")["paths"].items()
        for method, described in methods.items()
        if f"{method.upper()} {path}" not in OPEN_TO_ALL
    ]
    return sorted(found, key=lambda route: f"{route[0]} {route[1]}" in MAKES_ONES_OWN)


def world(tenant: OwnTenant) -> dict[str, Any]:
    """Everything that a burglar might have changed."""
    rebuilds = tenant.get(
        f"/v1/rebuilds/{tenant.audit.rebuild('streams', SECRET, auto_flip=False, idempotency_key='k').rebuild_id}"
    )
    subscription = tenant.get("/v1/subscriptions/ours")
    hold = tenant.audit.hold(SUBJECT, "ours").holds
    # The hold is an event of a stream, too, which its list shows a moment later.
    streams = list(tenant.audit.streams("", wait_for=(f"subjects/{SUBJECT}", 1)))
    return {
        "events": tenant.get("/v1/streams/accounts~1/events"),
        "state": tenant.get("/v1/streams/accounts~1/state"),
        "streams": streams,
        "rebuild": {name: rebuilds[name] for name in ("rebuild_id", "reason", "generation")},
        "subscription": {name: subscription[name] for name in ("target", "types", "created_at")},
        "hold": hold,
    }


def test_nothing_of_one_tenant_is_opened_or_changed_by_another_s_token(burglar):
    before = world(burglar.victim)
    tried = 0

    for method, path, described in routes(burglar.victim):
        answer = burglar.tries(method, path, described)
        tried += 1
        assert answer.status_code < 500, (method, path, answer.text)
        assert SECRET not in answer.text, (method, path)
        assert burglar.victim.name not in answer.text.replace(f"{burglar.victim.name}-x", ""), (method, path)
        if f"{method} {path}" not in MAKES_ONES_OWN and (
            path.endswith("/inclusion") or any(name in path for name in NAMED)
        ):
            # A write to the same name is one to the caller's own; these expect what is not there.
            assert answer.status_code in (400, 403, 404, 409), (method, path, answer.text)
    assert tried >= 25
    assert world(burglar.victim) == before


def test_a_cursor_of_one_tenant_is_none_of_another_s(burglar):
    query = {"type": "test.happened", "limit": 1, "cursor": burglar.ids["cursor"]}

    answer = burglar.http.get("/v1/events", params=query)

    assert burglar.victim.http.get("/v1/events", params=query).status_code == 200
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


def test_lists_of_another_tenant_show_nothing(burglar):
    for path in ("/v1/streams", "/v1/activity", "/v1/events?type=test.happened", "/v1/log/0", "/v1/log/1", "/v1/log/2"):
        answer = burglar.http.get(path).json()
        assert answer.get("items", answer.get("entries")) == [], path
    exported = [burglar.http.get("/v1/export", params={"partition": each}).json() for each in range(4)]
    assert SECRET not in json.dumps(exported)


def opening(described: Any) -> frozenset[str]:
    """Name the scopes of which a route asks for one."""
    return frozenset(scope for way in described["security"] for scope in way["token"])


def test_every_route_asks_for_its_own_scope(burglar):
    asked = {opening(described) for _, _, described in routes(burglar.victim)}
    url = burglar.victim.stack.url("audit")
    tried = 0
    for scopes in sorted(asked, key=sorted):
        others = tuple(each for each in SERVICES["audit"].scopes if each not in scopes)
        headers = {"Authorization": f"Bearer {token_for(burglar.victim.stack, burglar.victim.name, others)}"}
        with httpx.Client(base_url=url, headers=headers, timeout=ANSWER_SECONDS_MAX, trust_env=False) as http:
            for method, path, described in routes(burglar.victim):
                if opening(described) == scopes:
                    answer = burglar.tries(method, path, described, http)
                    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), (method, path)
                    tried += 1
    assert tried == len(routes(burglar.victim))


def test_no_route_answers_without_a_token(burglar):
    url = burglar.victim.stack.url("audit")
    with httpx.Client(base_url=url, timeout=ANSWER_SECONDS_MAX, trust_env=False) as http:
        for method, path, described in routes(burglar.victim):
            answer = burglar.tries(method, path, described, http)
            assert (answer.status_code, answer.json()["code"]) == (401, "token_missing"), (method, path)
