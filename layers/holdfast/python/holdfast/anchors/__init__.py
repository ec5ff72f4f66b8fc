"""
Anchors: what all logs of a service come to, signed, and kept where nobody can change it.

A hash chain cannot show that its end was cut off, and whoever can write a table can write another chain. So every
minute in which something moved, the heads of all logs are hashed into one root; a statement of it, which names the
statement before, is signed by a key that never leaves KMS, and lies in a bucket under Object Lock. Anchors are numbered
from 1 without gaps.

    statements   the bytes that are hashed and signed
    signing      the key
    anchors      making, keeping and showing them
"""

from holdfast.anchors.anchors import Anchors, Inconsistent
from holdfast.anchors.signing import KmsSigner, MemorySigner, Signer, public_keys
from holdfast.anchors.statements import Anchor, HeadLeaf, SignedHead, Statement, TenantAnchor

__all__ = [
    "Anchor",
    "Anchors",
    "HeadLeaf",
    "Inconsistent",
    "KmsSigner",
    "MemorySigner",
    "SignedHead",
    "Signer",
    "Statement",
    "TenantAnchor",
    "public_keys",
]
