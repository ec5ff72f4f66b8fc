"""What is signed, to the byte; what anchors promise; and the key behind them."""

import base64
import gzip
import random
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from botocore import exceptions as failures
from moto import mock_aws

from holdfast import kms as module
from holdfast.anchors import Anchor, Anchors, Inconsistent, KmsSigner, MemorySigner, Signer, Statement, public_keys
from holdfast.anchors.signing import MESSAGE_BYTES_MAX, is_signed, key_id_of
from holdfast.anchors.statements import leaf_of, leaves_of, super_root_of, view_of
from holdfast.aws import client
from holdfast.clock import ManualClock, to_micros
from holdfast.errors import NotFound, Unavailable
from holdfast.log.values import Head, log_id
from holdfast.objects import Damaged, MemoryObjects
from holdfast.proofs import EMPTY_ROOT, leaf_hash, root, verify_inclusion
from tests.anchored import SERVICE, World, leaf_fields
from tests.dynamo_tables import REGION


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def anchors(world: World) -> Anchors:
    return world.anchors()


# --- The bytes


def test_a_head_leaf_is_this_and_nothing_else():
    head = Head("ann", 3, 7, 9, bytes(range(32)), (), None)

    assert leaf_of("audit", head) == (
        b'{"log_id":"' + log_id("audit", "ann").encode() + b'","partition":3,'
        b'"root":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","size":7,"tenant":"ann","v":1}'
    )


def test_a_statement_is_this_and_nothing_else():
    statement = Statement(seq=2, time=1_700_000_000_000_000, service="audit", leaves=3, super_root="ab", previous="cd")

    assert statement.to_bytes() == (
        b'{"leaves":3,"previous":"cd","seq":2,"service":"audit","super_root":"ab","time":1700000000000000,"v":1}'
    )


def test_an_anchor_in_the_bucket_is_this_and_nothing_else(world, anchors):
    world.grow("ann", 0, 5)
    anchor = anchors.sign()

    assert anchor
    kept = world.objects.get("anchors/0000000000000001.json.gz") or b""
    assert msgspec.json.decode(gzip.decompress(kept)) == {
        "statement": base64.b64encode(anchor.statement).decode(),
        "signature": base64.b64encode(anchor.signature).decode(),
        "key_id": key_id_of(world.signer),
        "heads": [base64.b64encode(leaf).decode() for leaf in anchor.heads],
    }


def test_what_an_anchor_takes_is_what_the_readme_says():
    """Heads are of random bytes, as hashes are: nothing makes them smaller than they will be."""
    noise = random.Random(1)
    heads = [
        Head(f"tenant-{tenant:04}", partition, 10**6 + tenant, 10**7, noise.randbytes(32), (), None)
        for tenant in range(250)
        for partition in range(4)
    ]
    leaves = leaves_of(SERVICE, heads)
    statement = Statement(1, 1_700_000_000_000_000, SERVICE, len(leaves), super_root_of(leaves), "ab" * 32)

    kept = Anchor(statement.to_bytes(), noise.randbytes(71), "k" * 43, leaves).to_bytes()

    assert 60 < len(kept) / len(leaves) < 70


# --- Making and finding


def test_nothing_is_signed_where_nothing_is(world, anchors):
    assert anchors.sign() is None
    assert anchors.latest() is None
    assert world.chain() == []


def test_the_first_anchor_signs_every_partition_of_each_log_that_has_begun_in_their_order(world, anchors):
    for tenant, partition, size in (("bob", 1, 4), ("ann", 2, 3), ("ann", 0, 5), ("zoe", 3, 1), ("cai", 0, 0)):
        world.grow(tenant, partition, size)

    anchor = anchors.sign()

    assert anchor
    leaves = [leaf_fields(leaf) for leaf in anchor.heads]
    assert [(leaf["tenant"], leaf["partition"], leaf["size"]) for leaf in leaves] == [
        ("ann", 0, 5), ("ann", 1, 0), ("ann", 2, 3), ("ann", 3, 0),
        ("bob", 0, 0), ("bob", 1, 4), ("bob", 2, 0), ("bob", 3, 0),
        ("zoe", 0, 0), ("zoe", 1, 0), ("zoe", 2, 0), ("zoe", 3, 1),
    ]  # fmt: skip
    assert {leaf["root"] for leaf in leaves if not leaf["size"]} == {EMPTY_ROOT.hex()}
    assert anchor.said == Statement(
        seq=1,
        time=to_micros(world.clock.now()),
        service=SERVICE,
        leaves=12,
        super_root=root(map(leaf_hash, anchor.heads)).hex(),
        previous="",
    )
    assert is_signed(world.signer.public_key, anchor.signature, anchor.statement)
    assert (anchors.latest(), anchors.get(1), world.pointed()) == (anchor, anchor, 1)


def test_where_nothing_moved_nothing_is_written(world, anchors):
    world.grow("ann", 0, 5)
    first = anchors.sign()
    world.clock.advance(timedelta(minutes=1))

    assert anchors.sign() is None
    assert world.chain() == [first]


def test_each_anchor_names_the_one_before(world, anchors):
    for size in range(1, 6):
        world.grow("ann", 0, size)
        world.grow("bob", 1, 10 * size)
        assert anchors.sign()
        world.clock.advance(timedelta(minutes=1))

    assert [anchor.said.seq for anchor in world.chain()] == [1, 2, 3, 4, 5]
    assert anchors.get(3).said.previous == sha256(anchors.get(2).statement).hexdigest()


def test_a_clock_that_was_set_back_makes_no_anchor_earlier(world, anchors):
    world.grow("ann", 0, 1)
    anchors.sign()
    world.clock.jump(-timedelta(minutes=15))
    world.grow("ann", 0, 2)
    anchors.sign()

    first, second = world.chain()
    assert second.said.time == first.said.time + 1


@pytest.mark.parametrize("seq", [0, -1, 2, 10**16, 10**30])
def test_an_anchor_that_does_not_exist_is_not_found(world, anchors, seq):
    world.grow("ann", 0, 1)
    anchors.sign()

    with pytest.raises(NotFound):
        anchors.get(seq)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("behind", ["lost", "one", "first"])
def test_a_pointer_that_is_behind_is_brought_up(world, anchors, count, behind):
    for size in range(1, count + 1):
        world.grow("ann", 0, size)
        anchors.sign()
    world.point({"lost": None, "one": count - 1, "first": 1}[behind])

    anchors.sign()

    assert world.pointed() == count == len(world.chain())


def test_an_anchor_that_nobody_pointed_to_is_answered_by_who_finds_it(world, anchors):
    world.grow("ann", 0, 1)
    first = anchors.sign()
    world.point(None)

    assert anchors.sign() == first
    assert anchors.sign() is None


def test_who_finds_an_anchor_and_news_signs_the_next(world, anchors):
    world.grow("ann", 0, 1)
    anchors.sign()
    world.point(None)
    world.grow("ann", 0, 2)

    newest = anchors.sign()

    assert newest
    assert newest.said.seq == 2
    assert world.pointed() == 2


@pytest.mark.parametrize("change", ["shorter", "other root", "gone"])
def test_a_log_that_lost_what_was_signed_is_not_signed(world, anchors, change):
    world.grow("ann", 0, 5)
    world.grow("bob", 0, 5)
    first = anchors.sign()
    match change:
        case "shorter":
            world.grow("ann", 0, 4)
        case "other root":
            world.grow("ann", 0, 5, bytes(32))
        case _:
            world.grow("ann", 0, 0)

    with pytest.raises(Inconsistent, match="ann"):
        anchors.sign()
    assert world.chain() == [first]


def test_a_signature_that_is_none_is_not_kept(world):
    class Confused:
        public_key = world.signer.public_key

        def sign(self, message: bytes) -> bytes:
            return world.signer.sign(message + b"!")

    world.grow("ann", 0, 1)
    with pytest.raises(Unavailable):
        world.anchors(signer=Confused()).sign()
    assert world.chain() == []


def test_an_anchor_that_is_gone_or_another_is_damage(world, anchors):
    world.grow("ann", 0, 1)
    anchors.sign()
    other = World(world.transport)

    with pytest.raises(Damaged):
        other.anchors().latest()
    with pytest.raises(Damaged):
        other.anchors().sign()
    world.clock.advance(timedelta(minutes=1))
    forged = World()
    forged.grow("ann", 0, 1)
    forged.clock.advance(timedelta(minutes=3))
    forged.anchors().sign()
    with pytest.raises(Damaged):
        world.anchors(objects=forged.objects).latest()


@pytest.mark.parametrize("at", [0, 12, 200, -6, -1])
def test_an_anchor_with_a_changed_or_missing_byte_is_damage(world, anchors, at):
    world.grow("ann", 0, 1)
    anchors.sign()
    (key,) = world.objects.keys("")
    kept = bytearray(world.objects.get(key) or b"")
    kept[at] ^= 1
    for body in (bytes(kept), bytes(kept[:at])):
        changed = MemoryObjects()
        changed.put_new(key, body)

        with pytest.raises(Damaged):
            world.anchors(objects=changed).latest()


@pytest.mark.parametrize("by", [timedelta(minutes=2), -timedelta(minutes=2)])
def test_a_clock_that_is_not_the_stores_signs_nothing(world, anchors, by):
    world.grow("ann", 0, 1)
    anchors.database.skew = by  # as the store's answers would have told

    with pytest.raises(Unavailable, match="clock_skew"):
        anchors.sign()
    assert world.chain() == []


def test_keys_that_have_signed_are_named_for_ever(world, anchors):
    assert anchors.named_keys() == [world.signer.public_key]
    world.grow("ann", 0, 1)
    anchors.sign()
    others = [MemorySigner(), MemorySigner()]
    for size, signer in enumerate([others[0], others[1], world.signer], start=2):
        world.grow("ann", 0, size)
        world.anchors(signer=signer).sign()

    named = anchors.named_keys()
    assert named[0] == world.signer.public_key
    assert {*named[1:]} == {signer.public_key for signer in others}
    assert len(named) == 3
    assert [anchor.key_id for anchor in world.chain()] == [
        key_id_of(signer) for signer in (world.signer, *others, world.signer)
    ]


def test_a_key_that_was_to_sign_is_named_before_its_anchor_stands(world, anchors):
    class Cut(MemoryObjects):
        def put_new(self, key: str, body: bytes) -> bool:
            raise Unavailable("store_unavailable", "no answer")

    world.grow("ann", 0, 1)
    signer = MemorySigner()
    with pytest.raises(Unavailable):
        world.anchors(objects=Cut(), signer=signer).sign()

    assert world.chain() == []
    assert signer.public_key in anchors.named_keys()


# --- One tenant's view


@pytest.mark.parametrize("others", [*range(9), 15, 16, 17, 40])
def test_a_tenant_sees_its_own_heads_with_paths_that_prove_them(others):
    heads = [leaf_of(SERVICE, Head(f"t{n:02}", 0, n + 1, 0, bytes([n]) * 32, (), None)) for n in range(others)]
    own = [leaf_of(SERVICE, Head("t05x", p, p + 1, 0, bytes([p]) * 32, (), None)) for p in (0, 1, 3)]
    leaves = (*heads[:6], *own, *heads[6:])
    super_root = root(map(leaf_hash, leaves))
    statement = Statement(9, 1, SERVICE, len(leaves), super_root.hex(), "")
    anchor = Anchor(statement.to_bytes(), b"signature", "key", leaves)

    view = view_of(anchor, "t05x")

    assert (view.seq, view.statement, view.signature, view.key_id) == (9, anchor.statement, b"signature", "key")
    assert [(head.partition, head.size, head.root) for head in view.heads] == [
        (p, p + 1, bytes([p]) * 32) for p in (0, 1, 3)
    ]
    for head, leaf in zip(view.heads, own, strict=True):
        assert head.leaf == leaf
        assert verify_inclusion(leaf_hash(leaf), head.index, len(leaves), head.path, super_root)


def test_a_tenant_sees_nothing_of_the_others(world, anchors):
    for tenant in ("ann", "bob", "cai"):
        world.grow(tenant, 0, 3)
    anchor = anchors.sign()

    seen = b"".join([head.leaf for head in anchors.for_tenant(anchor, "bob").heads])

    assert b"bob" in seen
    assert b"ann" not in seen
    assert b"cai" not in seen
    assert anchors.for_tenant(anchor, "dee").heads == ()


# --- The key


class SignerPromises:
    """Subclasses provide `signer`."""

    def test_what_it_signed_is_signed_by_its_public_key(self, signer: Signer):
        assert is_signed(signer.public_key, signer.sign(b"message"), b"message")

    def test_nothing_else_is(self, signer: Signer):
        signature = signer.sign(b"message")

        assert not is_signed(signer.public_key, signature, b"messagE")
        assert not is_signed(MemorySigner().public_key, signature, b"message")
        assert not is_signed(signer.public_key, b"", b"message")

    def test_its_name_is_found_among_the_published_keys(self, signer: Signer):
        (jwk,) = public_keys([signer.public_key])["keys"]

        assert jwk["kid"] == key_id_of(signer)
        assert (jwk["kty"], jwk["crv"], jwk["alg"]) == ("EC", "P-256", "ES256")


class TestInMemory(SignerPromises):
    @pytest.fixture
    def signer(self) -> Signer:
        return MemorySigner()


@pytest.fixture(scope="module")
def kms_key() -> Iterator[str]:
    with mock_aws():
        client.cache_clear()
        kms = client("kms", region=REGION, endpoint_url=None)
        yield kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
        client.cache_clear()


@pytest.fixture
def kms_signer(kms_key: str) -> KmsSigner:
    return KmsSigner(kms_key, ManualClock(), region=REGION)


class TestInKms(SignerPromises):
    @pytest.fixture
    def signer(self, kms_signer: KmsSigner) -> Signer:
        return kms_signer


def refusal(status: int, code: str) -> Exception:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return failures.ClientError(response, "Sign")  # type: ignore[arg-type]


class FaultyKms:
    """KMS whose first calls fail."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors
        self._real = client("kms", region=REGION)

    def __getattr__(self, name: str) -> Any:
        if self.errors:
            raise_next = self.errors.pop(0)

            def fail(**_request: Any) -> Any:
                raise raise_next

            return fail
        return getattr(self._real, name)


PASSING = [
    refusal(500, "KMSInternalException"),
    refusal(500, "KeyUnavailableException"),
    refusal(503, "DependencyTimeoutException"),
    refusal(400, "ThrottlingException"),
    refusal(429, "429"),
    failures.ReadTimeoutError(endpoint_url="kms"),
    failures.EndpointConnectionError(endpoint_url="kms"),
]


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_kms_is_asked_again_when_it_does_not_answer(kms_signer, monkeypatch, error):
    faulty = FaultyKms([])
    monkeypatch.setattr(module, "client", lambda *_args, **_rest: faulty)
    faulty.errors = [error, error]

    signature = kms_signer.sign(b"message")

    assert is_signed(kms_signer.public_key, signature, b"message")
    faulty.errors = [error] * 100
    with pytest.raises(Unavailable):
        kms_signer.sign(b"message")
    assert len(faulty.errors) == 100 - kms_signer.budget.attempts_max


@pytest.mark.parametrize("code", ["AccessDeniedException", "DisabledException", "KMSInvalidStateException"])
def test_what_kms_refuses_is_not_asked_again(kms_signer, monkeypatch, code):
    faulty = FaultyKms([])
    monkeypatch.setattr(module, "client", lambda *_args, **_rest: faulty)
    faulty.errors = [refusal(400, code)] * 2

    with pytest.raises(failures.ClientError):
        kms_signer.sign(b"message")
    assert len(faulty.errors) == 1


def test_what_kms_would_not_sign_as_it_is_never_leaves(kms_signer):
    with pytest.raises(ValueError, match="at most"):
        kms_signer.sign(bytes(MESSAGE_BYTES_MAX + 1))
