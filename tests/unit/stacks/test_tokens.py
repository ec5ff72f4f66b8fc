import base64
import json

import pytest

from holdfast.auth import new_claims
from holdfast.clock import ManualClock
from stacks import Unusable, tokens
from stacks.services import all_scopes
from stacks.tokens import TTL_SECONDS_MAX

NOW = int(ManualClock().now().timestamp())


def token_saying(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


def whole(**changed: object) -> dict[str, object]:
    said = {"iss": "holdfast", "sub": "ann", "tenant": "a", "scopes": [], "iat": NOW, "exp": NOW + 60, "jti": "j1"}
    return {**said, **changed}


@pytest.mark.parametrize("tenant", ["", "A", "a_b", "a" * 41, "a\n", "ä"])
def test_a_tenant_is_lower_case_letters_digits_and_hyphens(tenant: str):
    with pytest.raises(Unusable, match="cannot be a tenant"):
        tokens.check_request(tenant, "ann", all_scopes(), 60)


@pytest.mark.parametrize("subject", ["", "a" * 513])
def test_a_subject_is_named(subject: str):
    with pytest.raises(Unusable, match="subject"):
        tokens.check_request("a", subject, all_scopes(), 60)


@pytest.mark.parametrize("scopes", [["audit:nothing"], ["*"], ["audit:read", "x"], []])
def test_only_scopes_that_a_service_asks_for_are_given(scopes: list[str]):
    with pytest.raises(Unusable) as refused:
        tokens.check_request("a", "ann", scopes, 60)

    assert "audit:read" in refused.value.next_step


@pytest.mark.parametrize("ttl_seconds", [0, -1, TTL_SECONDS_MAX + 1])
def test_a_token_lives_a_second_to_thirty_days(ttl_seconds: int):
    with pytest.raises(Unusable, match="cannot live"):
        tokens.check_request("a", "ann", all_scopes(), ttl_seconds)


@pytest.mark.parametrize("ttl_seconds", [1, TTL_SECONDS_MAX])
def test_what_is_in_bounds_is_taken(ttl_seconds: int):
    tokens.check_request("a-1", "ann", all_scopes(), ttl_seconds)
    new_claims(tenant="a-1", subject="ann", scopes=all_scopes(), jti="j", now=ManualClock().now(), ttl_seconds=1)


def test_a_token_names_itself_and_its_end():
    assert tokens._identify(token_saying(**whole()), NOW) == ("j1", NOW + 60)


def test_a_token_that_claims_to_live_for_ever_is_not_remembered_for_ever():
    assert tokens._identify(token_saying(**whole(exp=10**12)), NOW) == ("j1", NOW + TTL_SECONDS_MAX)


@pytest.mark.parametrize("given", ["a.b.c", "e30.!!!.e30", "", "a b", "x" * 129, token_saying(jti="j1"), "j/1"])
def test_what_is_neither_a_token_nor_an_id_is_refused(given: str):
    with pytest.raises(Unusable, match="neither a token nor the id"):
        tokens._identify(given, NOW)
