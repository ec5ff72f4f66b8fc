"""What may be pinned, and that it is one of those keys that has signed."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from holdfast.anchors import MemorySigner
from holdfast_client.verifier import Proven, keys_of, verify
from tests.exported_log import pem

OWN = pem(MemorySigner())
OTHER = pem(MemorySigner())
BEGIN, END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"
CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def written(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def on_a_curve_that_nobody_knows() -> bytes:
    """A key as it is written, but for the name of its curve."""
    der = base64.b64decode(OWN.removeprefix(BEGIN).strip().removesuffix(END))
    prime256v1, another = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
    assert prime256v1 in der
    return b"%b\n%b%b\n" % (BEGIN, base64.encodebytes(der.replace(prime256v1, another)), END)


NO_PINS = {
    "nothing": b"",
    "no PEM": b"no key",
    "no key in it": b"%b\nAAAA\n%b" % (BEGIN, END),
    "on P-384": written(ec.generate_private_key(ec.SECP384R1())),
    "on P-256 and on P-384": OWN + written(ec.generate_private_key(ec.SECP384R1())),
    "on a curve that nobody knows": on_a_curve_that_nobody_knows(),
    "RSA": written(rsa.generate_private_key(65_537, 2_048)),
    "private": ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "a second key that is cut short": OWN + OTHER[:-30],
    "a first key that is cut short": OWN[:-30] + OTHER,
    "a certificate behind it": OWN + CERTIFICATE,
    "a certificate before it": CERTIFICATE + OWN,
    "words behind it": OWN + b"and others",
}


@pytest.mark.parametrize("pinned", NO_PINS.values(), ids=NO_PINS)
def test_a_pin_that_is_no_key_or_more_than_keys_is_refused(pinned):
    with pytest.raises(ValueError, match=r"key"):
        verify([], pinned)


@pytest.mark.parametrize(
    "pinned",
    [OWN + OTHER, OWN + b"\n \n" + OTHER + b"\n", (OWN + OTHER).replace(b"\n", b"\r\n"), b"\n" + (OWN + OTHER).strip()],
    ids=["as they are", "with blank lines", "with other ends of lines", "without the last one's end"],
)
def test_keys_are_read_however_far_apart(pinned):
    assert keys_of(pinned) == keys_of(OWN) + keys_of(OTHER)


def test_any_of_several_pinned_keys_may_have_signed(log):
    assert isinstance(verify(log.lines(), OTHER + pem(log.signer)), Proven)
