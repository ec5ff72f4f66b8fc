"""What a store of objects promises, in memory and on S3; and what S3's answers and silences mean."""

import base64
import hashlib
import io
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore import exceptions as failures
from botocore.awsrequest import AWSResponse
from botocore.response import StreamingBody
from moto import mock_aws

from holdfast import objects as module
from holdfast.aws import client
from holdfast.clock import ManualClock
from holdfast.errors import Throttled, Unavailable, Uncertain
from holdfast.objects import CALLS, Damaged, MemoryObjects, Objects, S3Objects
from holdfast.retry import deadline

REGION = "us-east-1"
THREADS = 8

_NUMBERS = itertools.count()


class ObjectsPromises:
    """Subclasses provide `objects`, an empty store."""

    def test_what_was_put_is_read_whole_and_in_part(self, objects: Objects):
        assert objects.put_new("a/1", b"0123456789")

        assert objects.get("a/1") == b"0123456789"
        assert objects.get_range("a/1", 0, 10) == b"0123456789"
        assert objects.get_range("a/1", 3, 4) == b"3456"

    def test_what_was_never_put_is_not_there(self, objects: Objects):
        assert objects.get("a/1") is None

    def test_nothing_replaces_what_stands(self, objects: Objects):
        objects.put_new("a/1", b"first")

        assert not objects.put_new("a/1", b"second")
        assert objects.get("a/1") == b"first"

    def test_who_repeats_its_own_bytes_is_told_that_they_stand(self, objects: Objects):
        assert objects.put_new("a/1", b"first")
        assert objects.put_new("a/1", b"first")

    @pytest.mark.parametrize(("offset", "length"), [(8, 3), (10, 1), (100, 1)])
    def test_a_range_beyond_the_end_is_damage(self, objects: Objects, offset: int, length: int):
        objects.put_new("a/1", b"0123456789")

        with pytest.raises(Damaged):
            objects.get_range("a/1", offset, length)

    def test_a_range_of_what_is_not_there_is_damage(self, objects: Objects):
        with pytest.raises(Damaged):
            objects.get_range("a/1", 0, 1)

    @pytest.mark.parametrize(("offset", "length"), [(-1, 2), (0, 0), (0, -1)])
    def test_a_range_that_is_none_is_a_fault_of_ours(self, objects: Objects, offset: int, length: int):
        objects.put_new("a/1", b"0123456789")

        with pytest.raises(ValueError, match="range"):
            objects.get_range("a/1", offset, length)

    def test_an_empty_object_is_there(self, objects: Objects):
        assert objects.put_new("a/1", b"")
        assert objects.get("a/1") == b""

    def test_keys_are_listed_in_order_over_every_page(self, objects: Objects, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(module, "PAGE_KEYS", 2)
        for number in (3, 1, 5, 2, 4):
            objects.put_new(f"a/{number}", b"x")
        objects.put_new("b/1", b"x")

        assert list(objects.keys("a/")) == ["a/1", "a/2", "a/3", "a/4", "a/5"]
        assert list(objects.keys("a/", after="a/3")) == ["a/4", "a/5"]
        assert list(objects.keys("c/")) == []


class ObjectsAtOncePromises:
    """What holds between threads."""

    def test_of_many_at_once_one_puts(self, objects: Objects):
        won = list[int]()
        threads = [
            threading.Thread(target=lambda n=n: won.append(n) if objects.put_new("a/1", str(n).encode()) else None)
            for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [str(n).encode() for n in won] == [objects.get("a/1")]


class TestInMemory(ObjectsPromises, ObjectsAtOncePromises):
    @pytest.fixture
    def objects(self) -> Objects:
        return MemoryObjects()


class TestOnS3(ObjectsPromises):
    @pytest.fixture
    def objects(self, s3: S3Objects) -> Objects:
        return s3


@pytest.fixture(scope="module")
def account() -> Iterator[Any]:
    with mock_aws():
        client.cache_clear()
        yield client("s3", region=REGION)
        client.cache_clear()


@pytest.fixture
def s3(account: Any) -> S3Objects:
    bucket = f"bucket-{next(_NUMBERS)}"
    account.create_bucket(Bucket=bucket)
    return S3Objects(bucket, ManualClock(), region=REGION)


# --- What S3 says, and does not say

Call = Callable[..., Any]
Fault = Callable[[Call, dict[str, Any]], Any]


def refusing(status: int, code: str) -> Fault:
    def fault(_call: Call, _request: dict[str, Any]) -> Any:
        response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise failures.ClientError(response, "Any")  # type: ignore[arg-type]

    return fault


def raising(error: Exception) -> Fault:
    def fault(_call: Call, _request: dict[str, Any]) -> Any:
        raise error

    return fault


def losing_the_reply(call: Call, request: dict[str, Any]) -> Any:
    call(**request)
    raise failures.ReadTimeoutError(endpoint_url="s3")


class Cut:
    """A body that ends before it should, and is not told to."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, _amount: int | None = None) -> bytes:
        return self._body


def cutting_the_body(call: Call, request: dict[str, Any]) -> Any:
    answer = call(**request)
    return answer | {"Body": Cut(answer["Body"].read()[:-1])}


def ending_the_body(call: Call, request: dict[str, Any]) -> Any:
    answer = call(**request)
    body: Any = Cut(answer["Body"].read()[:-1])
    return answer | {"Body": StreamingBody(body, answer["ContentLength"])}


def changing_the_body(call: Call, request: dict[str, Any]) -> Any:
    answer = call(**request)
    return answer | {"Body": Cut(b"X" + answer["Body"].read()[1:])}


PASSING: dict[str, Fault] = {
    "an error of the server": refusing(500, "InternalError"),
    "a server that is overrun": refusing(503, "ServiceUnavailable"),
    "a request that came too slowly": refusing(400, "RequestTimeout"),
    "no answer": raising(failures.ReadTimeoutError(endpoint_url="s3")),
    "no connection": raising(failures.EndpointConnectionError(endpoint_url="s3")),
    "a connection that was closed": raising(failures.ConnectionClosedError(endpoint_url="s3")),
    "a throttle": refusing(503, "SlowDown"),
    "a throttle by its status": refusing(429, "429"),
}


@pytest.fixture
def faults(account: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Fault]]:
    """Faults by operation; each attempt meets the next one, and none when they are over."""
    planned: dict[str, list[Fault]] = {}

    class Faulty:
        def __getattr__(self, operation: str) -> Call:
            call = getattr(account, operation)

            def attempt(**request: Any) -> Any:
                waiting = planned.get(operation)
                return waiting.pop(0)(call, request) if waiting else call(**request)

            return attempt

    monkeypatch.setattr(module, "client", lambda *_args, **_rest: Faulty())
    return planned


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_waited_for(s3, faults, fault):
    faults["put_object"] = [fault, fault]
    assert s3.put_new("a/1", b"body")
    faults["get_object"] = [fault, fault]
    assert s3.get("a/1") == b"body"
    faults["get_object"] = [fault, fault]
    assert s3.get_range("a/1", 1, 2) == b"od"
    faults["list_objects_v2"] = [fault, fault]
    assert list(s3.keys("a/")) == ["a/1"]


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_does_not_pass_in_time_is_told(s3, faults, fault):
    faults["get_object"] = [fault] * 100
    with pytest.raises((Unavailable, Throttled)):
        s3.get("a/1")
    assert len(faults["get_object"]) == 100 - s3.budget.attempts_max
    faults["put_object"] = [fault] * 100
    with pytest.raises(Uncertain):
        s3.put_new("a/1", b"body")


def test_a_put_whose_reply_was_lost_knows_itself(s3, faults):
    faults["put_object"] = [losing_the_reply]

    assert s3.put_new("a/1", b"body")
    assert s3.get("a/1") == b"body"


@pytest.mark.parametrize("silence", [PASSING["no answer"], refusing(403, "ExpiredToken")])
def test_a_put_that_cannot_look_at_what_stands_is_uncertain(s3, faults, silence):
    faults["put_object"] = [losing_the_reply]
    faults["get_object"] = [silence] * 100

    with pytest.raises(Uncertain):
        s3.put_new("a/1", b"body")


def test_a_put_that_was_refused_when_its_reply_had_been_lost_is_uncertain(s3, faults):
    faults["put_object"] = [losing_the_reply, refusing(403, "ExpiredToken")]

    with pytest.raises(Uncertain):
        s3.put_new("a/1", b"body")
    assert s3.put_new("a/1", b"body")


@pytest.mark.parametrize("before", [[], [PASSING["a throttle"]]])
def test_a_put_that_was_refused_before_anything_can_have_happened_is_refused(s3, faults, before):
    faults["put_object"] = [*before, refusing(403, "AccessDenied")]

    with pytest.raises(Exception, match="AccessDenied"):
        s3.put_new("a/1", b"body")


def test_a_neighbour_that_is_about_to_write_is_waited_for(s3, faults):
    faults["put_object"] = [refusing(409, "ConditionalRequestConflict")]

    assert s3.put_new("a/1", b"body")


@pytest.mark.parametrize("fault", [cutting_the_body, ending_the_body])
def test_a_body_that_was_cut_short_is_asked_for_again(s3, faults, fault):
    s3.put_new("a/1", b"body")

    faults["get_object"] = [fault]
    assert s3.get("a/1") == b"body"
    faults["get_object"] = [fault]
    assert s3.get_range("a/1", 0, 4) == b"body"


def test_a_body_that_is_always_cut_short_is_never_given(s3, faults):
    s3.put_new("a/1", b"body")
    faults["get_object"] = [cutting_the_body] * 100

    with pytest.raises(Unavailable):
        s3.get("a/1")


def test_bytes_that_are_not_those_that_were_put_are_damage_where_the_store_tells_no_checksum(s3, faults):
    s3.put_new("a/1", b"body")
    faults["get_object"] = [changing_the_body]

    with pytest.raises(Damaged):
        s3.get("a/1")


class Sending:
    """What S3 sends, byte by byte: botocore itself reads it, and compares it with the checksum that comes with it."""

    def __init__(self, *bodies: bytes, told_of: bytes = b"body", put: bytes = b"body") -> None:
        self.left = list(bodies)
        self.headers = {
            "x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(told_of).digest()).decode(),
            "x-amz-meta-sha256": hashlib.sha256(put).hexdigest(),
        }

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        body = self.left.pop(0)
        headers: Any = {**self.headers, "Content-Length": str(len(body))}
        return AWSResponse(request.url, 200, headers, io.BytesIO(body))


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Sending], S3Objects]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    made = client.__wrapped__("s3", region=REGION)
    monkeypatch.setattr(module, "client", lambda *_args, **_rest: made)

    def send(wire: Sending) -> S3Objects:
        made.meta.events.register_first("before-send.s3.GetObject", wire)
        return S3Objects("bucket", ManualClock(), region=REGION)

    yield send
    made.close()


def test_what_botocore_finds_changed_on_its_way_is_asked_for_again(sending):
    wire = Sending(b"bodX", b"bXdy", b"body")

    assert sending(wire).get("a/1") == b"body"
    assert wire.left == []


def test_what_always_comes_changed_is_never_given(sending):
    wire = Sending(*[b"bodX"] * 100)

    with pytest.raises(Unavailable):
        sending(wire).get("a/1")
    assert len(wire.left) == 100 - CALLS.attempts_max


def test_what_comes_as_it_stands_and_is_not_what_was_put_is_damage(sending):
    wire = Sending(b"else", b"else", told_of=b"else")

    with pytest.raises(Damaged):
        sending(wire).get("a/1")
    assert len(wire.left) == 1


def test_an_object_that_was_replaced_behind_our_back_is_damage(s3, account):
    s3.put_new("a/1", b"body")
    digest = hashlib.sha256(b"body").hexdigest()
    account.put_object(Bucket=s3.bucket, Key="a/1", Body=b"else", Metadata={"sha256": digest})

    with pytest.raises(Damaged):
        s3.get("a/1")


def test_an_upload_says_its_checksum_and_its_condition(s3, faults):
    asked = list[dict[str, Any]]()

    def noting(call: Call, request: dict[str, Any]) -> Any:
        asked.append(request)
        return call(**request)

    faults["put_object"] = [noting]
    s3.put_new("a/1", b"body")

    assert asked[0]["IfNoneMatch"] == "*"
    assert asked[0]["ChecksumSHA256"]


@pytest.mark.parametrize("refusal", [refusing(403, "AccessDenied"), refusing(404, "NoSuchBucket")])
def test_a_refusal_is_not_repeated_and_not_taken_for_an_absence(s3, faults, refusal):
    faults["get_object"] = [refusal] * 2

    with pytest.raises(Exception, match=r"AccessDenied|NoSuchBucket"):
        s3.get("a/1")
    assert len(faults["get_object"]) == 1


def test_a_deadline_ends_the_patience(s3, faults):
    faults["get_object"] = [PASSING["no answer"]] * 100

    with deadline(0.01, s3.clock), pytest.raises(Unavailable):
        s3.get("a/1")
    assert len(faults["get_object"]) > 90
