"""What key rings promise, in memory and on KMS; what a box is, to the byte; and what KMS's silences mean."""

import hmac
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore import exceptions as failures
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from moto import mock_aws

from holdfast import envelope
from holdfast import kms as module
from holdfast.aws import Garbled, client
from holdfast.clock import ManualClock
from holdfast.envelope import (
    OVERHEAD_BYTES,
    DataKey,
    Forged,
    KeyRing,
    MemoryKeyRing,
    encode_context,
    keyed_digest,
    seal,
    unseal,
)
from holdfast.envelope_kms import KmsKeyRing
from holdfast.errors import Unavailable
from holdfast.kms import CALLS
from holdfast.retry import deadline
from tests.dynamo_tables import REGION

HERE = {"tenant": "acme", "subject": "ann"}
ELSEWHERE = {"tenant": "acme", "subject": "bob"}


class KeyRingPromises:
    """Subclasses provide `ring`, and `other_ring`, which has another wrapping key."""

    def test_a_wrapped_key_comes_back_as_it_was_made(self, ring: KeyRing):
        made = ring.make(HERE)

        assert ring.unwrap(made.wrapped, HERE) == made.key

    def test_every_key_is_another(self, ring: KeyRing):
        assert ring.make(HERE).key != ring.make(HERE).key

    def test_what_is_kept_does_not_hold_the_key(self, ring: KeyRing):
        made = ring.make(HERE)

        assert made.key.secret not in made.wrapped

    @pytest.mark.parametrize("context", [ELSEWHERE, {"tenant": "acme"}, {}, {**HERE, "more": ""}])
    def test_a_key_is_unwrapped_under_its_own_context_only(self, ring: KeyRing, context: dict[str, str]):
        made = ring.make(HERE)

        with pytest.raises(Forged):
            ring.unwrap(made.wrapped, context)

    def test_another_ring_does_not_unwrap_it(self, ring: KeyRing, other_ring: KeyRing):
        made = ring.make(HERE)

        with pytest.raises(Forged):
            other_ring.unwrap(made.wrapped, HERE)

    @pytest.mark.parametrize("at", [-1, -20])
    def test_a_wrapped_key_that_was_changed_opens_nothing(self, ring: KeyRing, at: int):
        self.check_changed(ring, at)

    @pytest.mark.parametrize("at", [0, 5])
    def test_nor_does_one_that_was_changed_where_it_begins(self, ring: KeyRing, at: int):
        self.check_changed(ring, at)

    def check_changed(self, ring: KeyRing, at: int) -> None:
        made = ring.make(HERE)
        box = seal(b"content", made.key, HERE)
        changed = bytearray(made.wrapped)
        changed[at] ^= 1

        # Some rings do not notice. Then the key is another one, and the box says so.
        with pytest.raises(Forged):
            unseal(box, ring.unwrap(bytes(changed), HERE), HERE)

    @pytest.mark.parametrize("wrapped", [b"x", b"x" * 40, b"x" * 41])
    def test_what_was_never_wrapped_is_forged(self, ring: KeyRing, wrapped: bytes):
        with pytest.raises(Forged):
            ring.unwrap(wrapped, HERE)

    def test_neither_a_ring_nor_what_it_makes_shows_a_key_in_its_text(self, ring: KeyRing):
        made = ring.make(HERE)

        for text in (repr(made), str(made), repr(made.key), f"{made.key}", repr(ring)):
            assert repr(made.key.secret) not in text
            assert made.key.secret.hex() not in text
        assert "secret" not in repr(made)


class TestInMemory(KeyRingPromises):
    @pytest.fixture
    def ring(self) -> KeyRing:
        return MemoryKeyRing()

    @pytest.fixture
    def other_ring(self) -> KeyRing:
        return MemoryKeyRing()

    def test_the_ring_does_not_show_its_own_key(self):
        assert repr(MemoryKeyRing(b"r" * 32)) == "MemoryKeyRing()"


@pytest.fixture(scope="module")
def kms() -> Iterator[Any]:
    with mock_aws():
        client.cache_clear()
        yield boto3.client("kms", region_name=REGION)
        client.cache_clear()


class TestOnKms(KeyRingPromises):
    # A blob that names another key is refused by KMS with IncorrectKeyException, and by moto with
    # AccessDeniedException, which on KMS tells a fault of our rights. What either means is shown below.
    test_another_ring_does_not_unwrap_it = None  # type: ignore[assignment]
    test_nor_does_one_that_was_changed_where_it_begins = None

    @pytest.fixture
    def ring(self, kms: Any) -> KeyRing:
        return KmsKeyRing(kms.create_key()["KeyMetadata"]["KeyId"], ManualClock(), region=REGION)

    @pytest.fixture
    def other_ring(self, kms: Any) -> KeyRing:
        return KmsKeyRing(kms.create_key()["KeyMetadata"]["KeyId"], ManualClock(), region=REGION)

    def test_a_blob_of_another_size_is_no_data_key(self, kms: Any):
        key_id = kms.create_key()["KeyMetadata"]["KeyId"]
        blob = kms.encrypt(KeyId=key_id, Plaintext=b"short", EncryptionContext=HERE)["CiphertextBlob"]

        with pytest.raises(Forged):
            KmsKeyRing(key_id, ManualClock(), region=REGION).unwrap(blob, HERE)


def client_error(code: str, status: int) -> Exception:
    response: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return failures.ClientError(response, "Decrypt")


PASSING = [
    client_error("ThrottlingException", 400),
    client_error("KeyUnavailableException", 500),
    client_error("DependencyTimeoutException", 503),
    client_error("", 429),
    failures.ReadTimeoutError(endpoint_url="kms"),
    failures.EndpointConnectionError(endpoint_url="kms"),
    failures.ConnectionClosedError(endpoint_url="kms"),
    Garbled("cut short", {}),
]

Calls = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Calls]:
    """Let KMS answer by a script, the last line of which stays; tells the calls that were made."""

    def script(*answers: Exception | dict[str, Any]) -> Calls:
        calls: Calls = []

        class Kms:
            def __getattr__(self, operation: str) -> Callable[..., dict[str, Any]]:
                def call(**request: Any) -> dict[str, Any]:
                    calls.append((operation, request))
                    answer = answers[min(len(calls), len(answers)) - 1]
                    if isinstance(answer, Exception):
                        raise answer
                    return answer

                return call

        monkeypatch.setattr(module, "client", lambda *_, **__: Kms())
        return calls

    return script


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_what_passes_is_repeated_until_kms_answers(answering: Callable[..., Calls], fault: Exception):
    calls = answering(fault, fault, {"Plaintext": b"k" * 32})

    assert KmsKeyRing("key", ManualClock()).unwrap(b"wrapped", HERE) == DataKey(b"k" * 32)
    assert calls == [("decrypt", {"KeyId": "key", "CiphertextBlob": b"wrapped", "EncryptionContext": HERE})] * 3


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_a_silent_kms_is_told_within_the_budget(answering: Callable[..., Calls], fault: Exception):
    calls = answering(fault)

    with pytest.raises(Unavailable) as told:
        KmsKeyRing("key", ManualClock()).make(HERE)
    assert told.value.code == "keys_unavailable"
    assert len(calls) == CALLS.attempts_max


def test_kms_is_not_asked_beyond_the_deadline(answering: Callable[..., Calls]):
    calls = answering({"Plaintext": b"k" * 32})
    clock = ManualClock()

    with deadline(0, clock), pytest.raises(Unavailable) as told:
        KmsKeyRing("key", clock).unwrap(b"wrapped", HERE)
    assert (told.value.code, calls) == ("out_of_time", [])


@pytest.mark.parametrize("code", ["InvalidCiphertextException", "IncorrectKeyException"])
def test_what_kms_did_not_wrap_is_forged_and_not_asked_again(answering: Callable[..., Calls], code: str):
    calls = answering(client_error(code, 400))

    with pytest.raises(Forged):
        KmsKeyRing("key", ManualClock()).unwrap(b"wrapped", HERE)
    assert len(calls) == 1


@pytest.mark.parametrize("code", ["AccessDeniedException", "DisabledException", "NotFoundException"])
def test_faults_of_ours_travel_and_are_not_repeated(answering: Callable[..., Calls], code: str):
    calls = answering(client_error(code, 400))

    with pytest.raises(failures.ClientError, match=code):
        KmsKeyRing("key", ManualClock()).make(HERE)
    assert len(calls) == 1


def test_a_box_is_to_the_byte_what_is_written_of_it():
    key, nonce = DataKey(bytes(range(32))), bytes(range(12))
    authenticated = b"\x01\0\0\0\x01a\0\0\0\x011\0\0\0\x01b\0\0\0\x012"

    box = envelope._box(b"content", key, {"b": "2", "a": "1"}, nonce)

    assert box == b"\x01" + nonce + AESGCM(key.secret).encrypt(nonce, b"content", authenticated)
    assert box.hex() == "01000102030405060708090a0b246db86fa08bb6333f32c3083f1bbfa9a94d6b06f99b7f"
    assert len(box) == OVERHEAD_BYTES + len(b"content")
    assert unseal(box, key, {"a": "1", "b": "2"}) == b"content"


def test_contexts_are_written_by_name_behind_lengths():
    assert encode_context({"b": "é", "a": ""}).hex() == "000000016100000000000000016200000002c3a9"


def test_no_two_boxes_of_one_content_are_alike():
    key = DataKey(bytes(32))

    assert seal(b"x", key, HERE) != seal(b"x", key, HERE)


def test_a_nonce_has_96_bits_and_none_comes_twice():
    boxes = [seal(b"", DataKey(bytes(32)), HERE) for _ in range(100)]

    assert {len(box) for box in boxes} == {1 + 12 + 16}
    assert len({box[1:13] for box in boxes}) == len(boxes)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_data_key_has_256_bits(size: int):
    with pytest.raises(ValueError, match="data key"):
        DataKey(bytes(size))


def test_a_keyed_digest_is_an_hmac_that_nothing_else_makes():
    key = DataKey(b"k" * 32)

    assert keyed_digest(b"x", key) == hmac.digest(b"k" * 32, b"holdfast keyed digest 1\0x", "sha256")
    assert keyed_digest(b"x", key) != keyed_digest(b"x", DataKey(b"l" * 32))
