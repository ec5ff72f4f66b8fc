"""
The keys that functions verify tokens with, and the tokens.

The private key never leaves KMS: a token is signed there, and verified anywhere by the public key that
`publish_keys` writes to a parameter. A token is refused before its time by a row in the revocations table.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from holdfast import auth
from holdfast.clock import Clock, SystemClock
from holdfast.ids import uuid7
from stacks import DeployFailed, Unusable
from stacks.services import all_scopes
from stacks.target import Target

JWKS_PARAMETER = "/holdfast/auth/jwks"
CURSOR_KEY_PARAMETER = "/holdfast/auth/cursor-key"
REVOCATIONS_TABLE = "holdfast-base-revocations"
KEY_ALIAS = "alias/holdfast-tokens"

CURSOR_KEY_BYTES = 32
TTL_SECONDS_DEFAULT = 3_600
TTL_SECONDS_MAX = int(timedelta(days=30).total_seconds())
"""A token that must live longer is made again: revoking a lost one must not depend on finding its id."""

SUBJECT_CHARACTERS_MAX = 512
JTI_PATTERN = r"[A-Za-z0-9._:-]{1,128}"


def publish_keys(target: Target) -> None:
    """
    Write what functions verify with: the public signing key, and once and for all the key that seals cursors.

    Repeating changes nothing. A new signing key takes the old one's place at once, and with it all its tokens.
    """
    ssm = target.client("ssm")
    keys = msgspec.json.encode({"keys": [_signing_key(target)]}).decode()
    if _read_parameter(target, JWKS_PARAMETER) != keys:
        ssm.put_parameter(Name=JWKS_PARAMETER, Value=keys, Type="String", Overwrite=True)
    try:
        cursor_key = base64.b64encode(os.urandom(CURSOR_KEY_BYTES)).decode()
        # Never overwritten: every cursor that is out would become invalid.
        ssm.put_parameter(Name=CURSOR_KEY_PARAMETER, Value=cursor_key, Type="SecureString", Overwrite=False)
    except ssm.exceptions.ParameterAlreadyExists:
        return


def published_parameters(target: Target) -> list[str]:
    """List the parameters that `publish_keys` has written: no stack owns them."""
    return [name for name in (JWKS_PARAMETER, CURSOR_KEY_PARAMETER) if _read_parameter(target, name) is not None]


def create_token(
    target: Target,
    tenant: str,
    subject: str,
    scopes: Sequence[str],
    ttl_seconds: int = TTL_SECONDS_DEFAULT,
    *,
    clock: Clock | None = None,
) -> str:
    """
    Make a token that lets *subject* do what *scopes* say for *tenant*.

    Raises:
        Unusable: the tenant, a scope or the life time is not one that a token can have.
        DeployFailed: nothing is deployed there that could sign it.
    """
    now = (clock or SystemClock()).now()
    check_request(tenant, subject, scopes, ttl_seconds)
    claims = auth.new_claims(
        tenant=tenant, subject=subject, scopes=scopes, jti=uuid7(now), now=now, ttl_seconds=ttl_seconds
    )
    return auth.mint(claims, lambda signing_input: _sign(target, signing_input), _signing_key(target)["kid"])


def check_request(tenant: str, subject: str, scopes: Sequence[str], ttl_seconds: int) -> None:
    """
    Check what a token is asked to say, before anything is signed.

    Raises:
        Unusable: naming the first thing that is wrong, and what it may be.
    """
    if not re.fullmatch(auth.TENANT_PATTERN, tenant):
        raise Unusable(f"{tenant!r} cannot be a tenant.", "A tenant is 1 to 40 characters of a-z, 0-9 and -.")
    if not 1 <= len(subject) <= SUBJECT_CHARACTERS_MAX:
        raise Unusable(
            "The subject is empty or too long.", f"Name who acts, in 1 to {SUBJECT_CHARACTERS_MAX} characters."
        )
    unknown = sorted(set(scopes) - set(all_scopes()))
    if unknown or not scopes:
        raise Unusable(
            f"No service knows the scope {', '.join(unknown)}." if unknown else "A token needs a scope.",
            f"The scopes are {', '.join(all_scopes())}.",
        )
    if not 1 <= ttl_seconds <= TTL_SECONDS_MAX:
        raise Unusable(f"A token cannot live {ttl_seconds} s.", f"Choose 1 s to 30 days ({TTL_SECONDS_MAX} s).")


def revoke_token(target: Target, token_or_jti: str, *, clock: Clock | None = None) -> str:
    """
    Have a token refused everywhere within a minute, and give its id; revoking again changes nothing.

    Of a token itself the row is kept until it would have expired, of a bare id until any token would have.

    Raises:
        Unusable: it is neither a token nor an id of one.
    """
    now = int((clock or SystemClock()).now().timestamp())
    jti, expires = _identify(token_or_jti.strip(), now)
    table = target.client("dynamodb")
    try:
        table.put_item(
            TableName=REVOCATIONS_TABLE,
            Item={"pk": {"S": "R"}, "sk": {"S": jti}, "expires": {"N": str(expires)}},
            ConditionExpression="attribute_not_exists(pk)",
        )
    except table.exceptions.ConditionalCheckFailedException:
        return jti
    except table.exceptions.ResourceNotFoundException as error:
        raise _nothing_deployed() from error
    return jti


def _identify(token_or_jti: str, now: int) -> tuple[str, int]:
    """Read the id and the end of a token's life. Its signature does not matter: what is not ours, nobody accepts."""
    latest = now + TTL_SECONDS_MAX
    parts = token_or_jti.split(".")
    if len(parts) == 3:  # noqa: PLR2004 - header, claims and signature
        try:
            payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
            claims = msgspec.json.decode(payload, type=auth.Claims)
        except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
            raise _not_a_token() from error
        return claims.jti, min(claims.exp, latest)
    if not re.fullmatch(JTI_PATTERN, token_or_jti):
        raise _not_a_token()
    return token_or_jti, latest


def _not_a_token() -> Unusable:
    return Unusable("That is neither a token nor the id of one.", "Give the whole token, or its `jti`.")


def _signing_key(target: Target) -> dict[str, str]:
    kms = target.client("kms")
    try:
        return auth.jwk_of(kms.get_public_key(KeyId=KEY_ALIAS)["PublicKey"])
    except kms.exceptions.NotFoundException as error:
        raise _nothing_deployed() from error


def _sign(target: Target, signing_input: bytes) -> bytes:
    # As a digest: KMS takes messages up to 4,096 bytes only, and a token with many scopes is longer.
    signed = target.client("kms").sign(
        KeyId=KEY_ALIAS,
        Message=hashlib.sha256(signing_input).digest(),
        MessageType="DIGEST",
        SigningAlgorithm="ECDSA_SHA_256",
    )
    signature: bytes = signed["Signature"]
    return signature


def _nothing_deployed() -> DeployFailed:
    return DeployFailed(
        "Holdfast's base stack is not deployed there.", "Run ./holdfast up (here) or ./holdfast deploy."
    )


def _read_parameter(target: Target, name: str) -> Any:
    try:
        return target.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ParameterNotFound":
            return None
        raise
