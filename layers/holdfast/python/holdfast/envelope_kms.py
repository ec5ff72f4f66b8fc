"""
A key ring in KMS.

CloudTrail shows the context of each call in clear, so what a context names must not itself be secret.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

from holdfast.envelope import Context, DataKey, Forged, WrappedKey
from holdfast.kms import KmsKey

_FORGED: Final = frozenset({"IncorrectKeyException", "InvalidCiphertextException"})


@dataclass(frozen=True)
class KmsKeyRing(KmsKey):
    """A symmetric key of KMS (`SYMMETRIC_DEFAULT`)."""

    unavailable: ClassVar[str] = "keys_unavailable"

    def make(self, context: Context) -> WrappedKey:
        answer = self.ask("generate_data_key", KeySpec="AES_256", EncryptionContext=dict(context))
        return WrappedKey(DataKey(answer["Plaintext"]), answer["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, context: Context) -> DataKey:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - see holdfast.aws

        try:
            # Naming the key keeps a blob that somebody made under a key of their own from being taken for one of ours.
            answer = self.ask("decrypt", CiphertextBlob=wrapped, EncryptionContext=dict(context))
            return DataKey(answer["Plaintext"])
        except ClientError as error:
            if error.response.get("Error", {}).get("Code", "") in _FORGED:
                raise Forged("KMS did not wrap this under this key and context.") from error
            raise
        except ValueError as error:
            raise Forged("What KMS unwrapped is no data key.") from error
