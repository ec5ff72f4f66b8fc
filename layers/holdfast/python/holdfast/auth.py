"""
Who is asking: bearer tokens, verified without a call.

A token is a JWT (RFC 7519) signed with ES256 by one KMS key for all services. It names a tenant, a subject and scopes,
and dies by expiry or by revocation; when it cannot be known which tokens are revoked, nobody enters.
"""

# ruff: noqa: PLC0415 - jwt, cryptography and botocore are imported by the first call that needs them

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import msgspec

from holdfast.aws import client
from holdfast.clock import Clock
from holdfast.errors import Denied
from holdfast.remembered import Remembered
from holdfast.retry import check_deadline

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_ssm import SSMClient

ISSUER: Final = "holdfast"
ALGORITHM: Final = "ES256"
# `\Z`, because Python's `$` lets a newline follow.
TENANT_PATTERN: Final = r"^[a-z0-9-]{1,40}\Z"
SCOPE_PATTERN: Final = r"^[a-z]{1,20}:[a-z-]{1,20}\Z"
SUBJECT_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f]+\Z"
SUBJECT_BYTES_MAX: Final = 512
"""As many as an event's actor may take: who may write must be writable."""

TOKEN_SECONDS_DEFAULT: Final = 3_600
TOKEN_CHARACTERS_MAX: Final = 8_192
SCOPES_MAX: Final = 100
ISSUED_AHEAD_SECONDS_MAX: Final = 60
"""How far a token's birth may lie in the future: the signer's clock and ours may differ."""

KEYS_REFRESH_SECONDS: Final = 600
KEYS_AGE_SECONDS_MAX: Final = 3_600
"""How long keys serve while they cannot be read again. A key that was taken out for a reason is trusted no longer."""
KEYS_RETRY_SECONDS: Final = 10
KEYS_REREAD_SECONDS_MIN: Final = 60
"""An unknown key is a reason to read the keys again, but not for each forged token."""

REVOCATIONS_REFRESH_SECONDS: Final = 30
REVOCATIONS_AGE_SECONDS_MAX: Final = 60
REVOCATIONS_RETRY_SECONDS: Final = 10
"""A read may take 6 s to fail, and each request that tries waits for it: one in ten seconds does."""
NOBODY_ENTERS: Final = ", so no token is accepted"
REVOCATION_PAGES_MAX: Final = 32
"""A page of the revocations table is 1 MB: some 15,000 revoked tokens."""


# --- What a token says


class Principal(msgspec.Struct, frozen=True):
    """Who a valid token speaks for."""

    tenant: str
    subject: str
    scopes: frozenset[str]
    jti: str
    expires: int
    """When the token ends, in epoch seconds: what is opened with it ends with it."""

    def require(self, *scopes: str) -> None:
        """
        Let only those pass whose token carries one of *scopes*.

        Raises:
            Denied: `scope_missing`, naming them all to people and the first to programs.
        """
        if self.scopes.isdisjoint(scopes):
            named = " or ".join(scopes)
            raise Denied("scope_missing", f"This needs a token with the scope {named}.", scope=scopes[0])


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a token; others in it are ignored (RFC 7519, section 4)."""

    iss: str
    sub: Annotated[str, msgspec.Meta(pattern=SUBJECT_PATTERN)]
    tenant: Annotated[str, msgspec.Meta(pattern=TENANT_PATTERN)]
    scopes: Annotated[list[Annotated[str, msgspec.Meta(pattern=SCOPE_PATTERN)]], msgspec.Meta(max_length=SCOPES_MAX)]
    iat: int
    exp: int
    jti: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]

    def __post_init__(self) -> None:
        if len(self.sub.encode()) > SUBJECT_BYTES_MAX:
            raise ValueError(f"Expected a `sub` of at most {SUBJECT_BYTES_MAX} bytes")


def new_claims(
    *,
    tenant: str,
    subject: str,
    scopes: Iterable[str],
    jti: str,
    now: datetime,
    ttl_seconds: int = TOKEN_SECONDS_DEFAULT,
) -> Claims:
    """
    State the claims of a token born *now*.

    Raises:
        ValueError: a claim that no `Verifier` would take.
    """
    if ttl_seconds < 1:
        raise ValueError(f"A token lives at least one second, not {ttl_seconds}.")
    born = int(now.timestamp())
    claims = Claims(
        iss=ISSUER, sub=subject, tenant=tenant, scopes=sorted(set(scopes)), iat=born, exp=born + ttl_seconds, jti=jti
    )
    # Construction does not check a struct's bounds; conversion does, and its error is a ValueError.
    return msgspec.convert(msgspec.to_builtins(claims), Claims)


# --- Making tokens and keys


def mint(claims: Claims, sign: Callable[[bytes], bytes], kid: str) -> str:
    """
    Make the compact JWS (RFC 7515) of *claims*.

    *sign* answers the DER-encoded ECDSA signature over the SHA-256 of the bytes it is given, as KMS does
    for `ECDSA_SHA_256` and the message type `RAW`.
    """
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    header = {"alg": ALGORITHM, "kid": kid, "typ": "JWT"}
    signing_input = b".".join(_to_base64(msgspec.json.encode(part)) for part in (header, claims))
    r, s = decode_dss_signature(sign(signing_input))
    return b".".join((signing_input, _to_base64(r.to_bytes(32, "big") + s.to_bytes(32, "big")))).decode()


def jwk_of(public_key_der: bytes) -> dict[str, str]:
    """
    Describe a P-256 public key (DER, SubjectPublicKeyInfo: what KMS answers) as a JWK (RFC 7517).

    Raises:
        ValueError: it is no public key on P-256.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(public_key_der)
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError(  # noqa: TRY004 - the bytes are wrong, not their type
            "Tokens are signed with a key on the curve P-256 (KMS: ECC_NIST_P256)."
        )
    point = key.public_numbers()
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": _to_base64(point.x.to_bytes(32, "big")).decode(),
        "y": _to_base64(point.y.to_bytes(32, "big")).decode(),
    }
    return {**jwk, "kid": thumbprint(jwk), "alg": ALGORITHM, "use": "sig"}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Name an EC key by its RFC 7638 thumbprint."""
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    return _to_base64(hashlib.sha256(msgspec.json.encode(required)).digest()).decode()


def _to_base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


# --- Verifying


ReadKeys = Callable[[], Iterable[Mapping[str, Any]]]
"""Answers the JWKs that tokens may be signed with."""


class Revocations(Protocol):
    """Knows which tokens were revoked before their time."""

    def is_revoked(self, jti: str) -> bool:
        """
        Tell whether the token *jti* is revoked.

        Raises:
            Unavailable: `revocations_unknown`.
        """


class Verifier:
    """
    Turn an `Authorization` header into a `Principal`.

    A verification costs 75 µs on the 2-core machine it was measured on, so verified tokens are not remembered:
    a cache would have to learn of revocation and expiry, to save less than a hundredth of any request.
    """

    def __init__(self, read_keys: ReadKeys, revocations: Revocations, clock: Clock) -> None:
        self._keys = _Keys(read_keys, clock)
        self._revocations = revocations
        self._clock = clock

    def authenticate(self, authorization: str | None) -> Principal:
        """
        Name who is asking.

        Raises:
            Denied: 401 `token_missing`, `token_invalid`, `token_expired` or `token_revoked`.
            Unavailable: `token_keys_unknown`, `revocations_unknown`: they could not be read for too long.
        """
        claims = self._verified(_bearer_token(authorization))
        now = self._clock.now().timestamp()
        if claims.iss != ISSUER or claims.iat > now + ISSUED_AHEAD_SECONDS_MAX:
            raise _refused("token_invalid", "The token was not issued by this Holdfast, or lies in the future.")
        if claims.exp <= now:
            raise _refused("token_expired", "The token has expired: ask for a new one.")
        if self._revocations.is_revoked(claims.jti):
            raise _refused("token_revoked", "The token was revoked: ask for a new one.")
        return Principal(claims.tenant, claims.sub, frozenset(claims.scopes), claims.jti, claims.exp)

    def _verified(self, token: str) -> Claims:
        """Check the signature, and only then read what was signed."""
        import jwt

        jws = jwt.PyJWS(algorithms=[ALGORITHM])
        try:
            kid = jws.get_unverified_header(token).get("kid")
        except (jwt.InvalidTokenError, ValueError) as error:
            raise _refused("token_invalid", "The token is not a JWT.") from error
        key = self._keys.find(kid)
        if key is None:
            raise _refused("token_invalid", "The token is signed with a key that is not ours.")
        try:
            # The list pins the algorithm: `none`, and HMAC with a public key as its secret, end here.
            return msgspec.json.decode(jws.decode(token, key, algorithms=[ALGORITHM]), type=Claims)
        except (jwt.InvalidTokenError, msgspec.MsgspecError, ValueError) as error:
            raise _refused("token_invalid", "The token's signature is wrong, or its claims are.") from error


class _Keys:
    """
    The public keys by their kid, as read at most 10 min ago while the parameter answers, and never more than 1 h ago.

    An unknown kid may be a new key: for its sake they are read again after a minute.
    """

    def __init__(self, read: ReadKeys, clock: Clock) -> None:
        self._known = Remembered(
            lambda: _public_keys(read()),
            clock,
            what="The keys that sign tokens",
            code="token_keys_unknown",
            retry_seconds=KEYS_RETRY_SECONDS,
            consequence=NOBODY_ENTERS,
        )

    def find(self, kid: object) -> Any:
        keys = self._known.recall(refresh_seconds=KEYS_REFRESH_SECONDS, age_seconds_max=KEYS_AGE_SECONDS_MAX)
        if kid not in keys:
            keys = self._known.recall(refresh_seconds=KEYS_REREAD_SECONDS_MIN, age_seconds_max=KEYS_REREAD_SECONDS_MIN)
        return keys.get(kid)


def _public_keys(jwks: Iterable[Mapping[str, Any]]) -> dict[object, Any]:
    import jwt

    return {jwk["kid"]: jwt.PyJWK(dict(jwk), algorithm=ALGORITHM) for jwk in jwks}


def _bearer_token(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _refused("token_missing", "Send a token: `Authorization: Bearer <token>`.")
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise _refused("token_invalid", f"A token has at most {TOKEN_CHARACTERS_MAX} characters.")
    return token.strip()


def _refused(code: str, detail: str) -> Denied:
    return Denied(code, detail, status=401)


# --- Revocations


class RevocationList:
    """The revoked tokens, as read at most 30 s ago while the table answers, and never more than 60 s ago."""

    def __init__(self, read: Callable[[], frozenset[str]], clock: Clock) -> None:
        self._known = Remembered(
            read,
            clock,
            what="Which tokens are revoked",
            code="revocations_unknown",
            retry_seconds=REVOCATIONS_RETRY_SECONDS,
            consequence=NOBODY_ENTERS,
        )

    def is_revoked(self, jti: str) -> bool:
        return jti in self._known.recall(
            refresh_seconds=REVOCATIONS_REFRESH_SECONDS, age_seconds_max=REVOCATIONS_AGE_SECONDS_MAX
        )


# --- On AWS


def read_keys_parameter(ssm: "SSMClient", name: str) -> list[dict[str, Any]]:
    """Read the JWKS that `deploy` wrote to the parameter *name*, in one call."""
    check_deadline()
    keys: list[dict[str, Any]] = msgspec.json.decode(ssm.get_parameter(Name=name)["Parameter"]["Value"])["keys"]
    return keys


def read_revocations_table(dynamodb: "DynamoDBClient", table: str) -> frozenset[str]:
    """Read every revoked token's jti, page by page; the table's TTL removes those that have expired anyway."""
    pages = dynamodb.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="pk = :revoked",
        ExpressionAttributeValues={":revoked": {"S": "R"}},
        ProjectionExpression="sk",
    )
    check_deadline()
    revoked: set[str] = set()
    for number, page in enumerate(pages, start=1):
        if number > REVOCATION_PAGES_MAX:
            raise RuntimeError(f"{table} holds over {REVOCATION_PAGES_MAX} MB of revoked tokens; is its TTL on?")
        revoked.update(item["sk"]["S"] for item in page["Items"])
        if "LastEvaluatedKey" in page:
            check_deadline()
    return frozenset(revoked)


def verifier_from(environment: Mapping[str, str], clock: Clock) -> Verifier:
    """
    Wire the verifier that a function's settings describe: HOLDFAST_JWKS_PARAMETER, HOLDFAST_REVOCATIONS_TABLE.

    A request makes one attempt at each: what cannot be read now is read by a later one, and until then what is
    known serves.
    """
    parameter = environment["HOLDFAST_JWKS_PARAMETER"]
    return Verifier(
        read_keys=lambda: read_keys_parameter(client("ssm"), parameter),
        revocations=revocations_from(environment, clock),
        clock=clock,
    )


def revocations_from(environment: Mapping[str, str], clock: Clock) -> RevocationList:
    """Wire the list of revoked tokens that a function's setting HOLDFAST_REVOCATIONS_TABLE names."""
    table = environment["HOLDFAST_REVOCATIONS_TABLE"]
    return RevocationList(lambda: read_revocations_table(client("dynamodb"), table), clock)
