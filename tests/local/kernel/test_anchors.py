"""Anchors on the running engine: its tables, its bucket and its key, and many who anchor at once."""

import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from holdfast import aws
from holdfast.anchors import Anchor, KmsSigner, Signer
from holdfast.anchors.signing import is_signed
from holdfast.clock import SystemClock
from holdfast.dynamodb import BotocoreTransport
from holdfast.objects import S3Objects
from tests.anchored import World
from tests.dynamo_tables import REGION, UndatedTransport
from tests.unit.kernel.test_anchors import SignerPromises

ANCHORERS = 6
ROUNDS = 3
PREFIX = f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def endpoint_url(stack: Any) -> Iterator[str]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    aws.client.cache_clear()
    yield stack.running.engine.endpoint_url
    aws.client.cache_clear()
    patch.undo()


@pytest.fixture(scope="module")
def signer(stack: Any, endpoint_url: str) -> KmsSigner:
    key = stack.client("kms").create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]
    return KmsSigner(key["KeyId"], SystemClock(), region=REGION, endpoint_url=endpoint_url)


class TestInTheEnginesKms(SignerPromises):
    @pytest.fixture
    def signer(self, signer: Signer) -> Signer:
        return signer


@pytest.fixture
def world(stack: Any, endpoint_url: str) -> Iterator[World]:
    dynamodb, s3 = stack.client("dynamodb"), stack.client("s3")
    dynamodb.create_table(
        TableName=PREFIX,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    s3.create_bucket(Bucket=PREFIX, ObjectLockEnabledForBucket=True)
    transport = UndatedTransport(BotocoreTransport(REGION, stack.running.engine.dynamodb_endpoint_url))
    objects: Any = S3Objects(PREFIX, SystemClock(), region=REGION, endpoint_url=endpoint_url)
    yield World(transport, PREFIX, objects=objects)
    dynamodb.delete_table(TableName=PREFIX)


def test_many_who_anchor_at_once_make_one_chain(world: World, signer: KmsSigner):
    made = list[Anchor | None]()

    def run(start: threading.Barrier) -> None:
        anchors = world.anchors(signer=signer)
        start.wait()
        made.append(anchors.sign())

    for number in range(1, ROUNDS + 1):
        world.grow("ann", 0, number)
        world.grow("bob", 3, 2 * number)
        world.clock.advance(timedelta(minutes=1))
        start = threading.Barrier(ANCHORERS)
        threads = [threading.Thread(target=run, args=(start,)) for _ in range(ANCHORERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    chain = world.chain()
    assert len(chain) == ROUNDS
    assert {anchor for anchor in made if anchor} <= {*chain}
    assert len(made) == ROUNDS * ANCHORERS
    assert all(is_signed(signer.public_key, anchor.signature, anchor.statement) for anchor in chain)
    assert world.anchors(signer=signer).latest() == chain[-1]
