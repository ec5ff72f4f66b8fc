"""
Who is asking: bearer tokens, verified without a call.

A token is a JWT (RFC 7519) signed with ES256 by one KMS key for all services. It names a tenant, a subject and scopes,
and dies by expiry or by revocation; when it cannot be known which tokens are revoked, nobody enters.
"""

# ruff: noqa: PLC0415 - jwt, cryptography and botocore are imported by the first call that needs them

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import msgspec

from holdfast.aws import client
from holdfast.clock import Clock
from holdfast.errors import Denied, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_ssm import SSMClient

ISSUER: Final = "holdfast"
ALGORITHM: Final = "ES256"
# `\Z`, because Python's `$` lets a newline follow.
TENANT_PATTERN: Final = r"^[a-z0-9-]{1,40}\Z"
SCOPE_PATTERN: Final = r"^[a-z]{1,20}:[a-z-]{1,20}\Z"

TOKEN_SECONDS_DEFAULT: Final = 3_600
TOKEN_CHARACTERS_MAX: Final = 8_192
SCOPES_MAX: Final = 100
ISSUED_AHEAD_SECONDS_MAX: Final = 60
"""How far a token's birth may lie in the future: the signer's clock and ours may differ."""

KEYS_REREAD_SECONDS_MIN: Final = 60
"""An unknown key is a reason to read the keys again, but not for each forged token."""

REVOCATIONS_REFRESH_SECONDS: Final = 30
REVOCATIONS_AGE_SECONDS_MAX: Final = 60
REVOCATIONS_RETRY_SECONDS: Final = 1
REVOCATION_PAGES_MAX: Final = 32
"""A page of the revocations table is 1 MB: some 15,000 revoked tokens."""


# --- What a token says


class Principal(msgspec.Struct, frozen=True):
    """Who a valid token speaks for."""

    tenant: str
    subject: str
    scopes: frozenset[str]
    jti: str

    def require(self, scope: str) -> None:
        """
        Let only those pass whose token carries *scope*.

        Raises:
            Denied: `scope_missing`, naming the scope.
        """
        if scope not in self.scopes:
            raise Denied("scope_missing", f"This needs a token with the scope {scope}.", scope=scope)


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a token; others in it are ignored (RFC 7519, section 4)."""

    iss: str
    sub: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    tenant: Annotated[str, msgspec.Meta(pattern=TENANT_PATTERN)]
    scopes: Annotated[list[Annotated[str, msgspec.Meta(pattern=SCOPE_PATTERN)]], msgspec.Meta(max_length=SCOPES_MAX)]
    iat: int
    exp: int
    jti: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


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
            Unavailable: the keys or the revocations cannot be read.
        """
        claims = self._verified(_bearer_token(authorization))
        now = self._clock.now().timestamp()
        if claims.iss != ISSUER or claims.iat > now + ISSUED_AHEAD_SECONDS_MAX:
            raise _refused("token_invalid", "The token was not issued by this Holdfast, or lies in the future.")
        if claims.exp <= now:
            raise _refused("token_expired", "The token has expired: ask for a new one.")
        if self._revocations.is_revoked(claims.jti):
            raise _refused("token_revoked", "The token was revoked: ask for a new one.")
        return Principal(claims.tenant, claims.sub, frozenset(claims.scopes), claims.jti)

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
    """The public keys by their kid; read at first use, and again (seldom) when a kid is unknown."""

    def __init__(self, read: ReadKeys, clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._keys: dict[object, Any] = {}
        self._read_at = 0.0

    def find(self, kid: object) -> Any:
        is_rereadable = self._clock.monotonic() - self._read_at >= KEYS_REREAD_SECONDS_MIN
        if kid not in self._keys and (is_rereadable or not self._keys):
            self._read_at = self._clock.monotonic()
            self._keys = _public_keys(self._read())
        return self._keys.get(kid)


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
    """
    The revoked tokens, as read at most 30 s ago while the table answers, and never more than 60 s ago.

    Age is the larger of wall and monotonic time: a frozen sandbox stops the second, a set clock the first.
    """

    def __init__(self, read: Callable[[], frozenset[str]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._revoked: frozenset[str] = frozenset()
        self._read_at: _Moment | None = None
        self._tried_at: _Moment | None = None

    def is_revoked(self, jti: str) -> bool:
        failure = self._refresh() if self._is_due() else None
        if self._age(self._read_at) > REVOCATIONS_AGE_SECONDS_MAX:
            raise Unavailable(
                "revocations_unknown",
                "Which tokens are revoked could not be read for a minute, so none is accepted. Repeat shortly.",
                retry_after_seconds=REVOCATIONS_RETRY_SECONDS,
            ) from failure
        return jti in self._revoked

    def _is_due(self) -> bool:
        is_old = self._age(self._read_at) >= REVOCATIONS_REFRESH_SECONDS
        # While the table is away, not every request waits for its time-out.
        return is_old and self._age(self._tried_at) >= REVOCATIONS_RETRY_SECONDS

    def _refresh(self) -> Exception | None:
        self._tried_at = begun_at = _Moment.of(self._clock)
        try:
            self._revoked = self._read()
        except Exception as error:  # noqa: BLE001  whatever it is, the list is not fresh; too old, and it is raised
            self._tried_at = _Moment.of(self._clock)
            return error
        # What was revoked while the table was read may be missing: the list is as old as the question.
        self._read_at = begun_at
        return None

    def _age(self, since: "_Moment | None") -> float:
        return float("inf") if since is None else since.age(self._clock)


class _Moment(msgspec.Struct, frozen=True):
    wall: datetime
    monotonic: float

    @classmethod
    def of(cls, clock: Clock) -> "_Moment":
        return cls(clock.now(), clock.monotonic())

    def age(self, clock: Clock) -> float:
        return max((clock.now() - self.wall) / timedelta(seconds=1), clock.monotonic() - self.monotonic)


# --- On AWS


def read_keys_parameter(ssm: "SSMClient", name: str) -> list[dict[str, Any]]:
    """
    Read the JWKS that `deploy` wrote to the parameter *name*.

    Raises:
        Unavailable: `token_keys_unknown`.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        value = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    except (BotoCoreError, ClientError) as error:
        raise Unavailable("token_keys_unknown", "The keys that sign tokens could not be read. Repeat.") from error
    keys: list[dict[str, Any]] = msgspec.json.decode(value)["keys"]
    return keys


def read_revocations_table(dynamodb: "DynamoDBClient", table: str) -> frozenset[str]:
    """Read every revoked token's jti; the table's TTL removes those that have expired anyway."""
    pages = dynamodb.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression="pk = :revoked",
        ExpressionAttributeValues={":revoked": {"S": "R"}},
        ProjectionExpression="sk",
    )
    revoked: set[str] = set()
    for number, page in enumerate(pages, start=1):
        if number > REVOCATION_PAGES_MAX:
            raise RuntimeError(f"{table} holds over {REVOCATION_PAGES_MAX} MB of revoked tokens; is its TTL on?")
        revoked.update(item["sk"]["S"] for item in page["Items"])
    return frozenset(revoked)


def verifier_from(environment: Mapping[str, str], clock: Clock) -> Verifier:
    """Wire the verifier that a function's settings describe: HOLDFAST_JWKS_PARAMETER, HOLDFAST_REVOCATIONS_TABLE."""
    parameter, table = environment["HOLDFAST_JWKS_PARAMETER"], environment["HOLDFAST_REVOCATIONS_TABLE"]
    return Verifier(
        read_keys=lambda: read_keys_parameter(client("ssm"), parameter),
        revocations=RevocationList(lambda: read_revocations_table(client("dynamodb"), table), clock),
        clock=clock,
    )
