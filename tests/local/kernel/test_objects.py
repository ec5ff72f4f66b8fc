"""The promises of a store of objects, on the running engine: also between threads, and under Object Lock."""

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast import aws
from holdfast.clock import SystemClock
from holdfast.objects import Objects, S3Objects
from tests.dynamo_tables import REGION
from tests.unit.kernel.test_objects import ObjectsAtOncePromises, ObjectsPromises

_NUMBERS = itertools.count()
PREFIX = f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def s3(stack: Any) -> Iterator[Any]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    aws.client.cache_clear()
    yield stack.client("s3")
    aws.client.cache_clear()
    patch.undo()


@pytest.fixture
def objects(stack: Any, s3: Any) -> S3Objects:
    bucket = f"{PREFIX}-{next(_NUMBERS)}"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    s3.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}},
        },
    )
    return S3Objects(bucket, SystemClock(), region=REGION, endpoint_url=stack.running.engine.endpoint_url)


class TestOnTheEngine(ObjectsPromises, ObjectsAtOncePromises):
    pass


def test_what_is_locked_cannot_be_removed(objects: Objects, s3: Any):
    assert isinstance(objects, S3Objects)
    objects.put_new("anchors/1", b"signed")
    (version,) = s3.list_object_versions(Bucket=objects.bucket)["Versions"]

    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=objects.bucket, Key="anchors/1", VersionId=version["VersionId"])

    assert objects.get("anchors/1") == b"signed"
