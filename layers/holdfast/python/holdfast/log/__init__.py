"""
The log: every commit of every stream, once, in an order that nobody can change.

Streams are independent of each other, and what lies across them (search, read models, proofs, the archive) needs one
order. The log gives it: per tenant, four partitions; in each, commits stand at *leaves* of one Merkle tree (RFC 6962)
and their events at *positions*, both without gaps. A stream lies in one partition, in its own order.

    indexer   streams' commits into partitions, one transaction at a time
    blocks    what is known of a stream without reading its commits
    reader    heads, entries by position, and proofs
    tiles     the inner nodes of the tree, 256 at a time
"""

from holdfast.log.heads import heads
from holdfast.log.indexer import Broken, Hint, Indexer
from holdfast.log.reader import LogReader
from holdfast.log.values import PARTITIONS, Entry, Head, Reference, log_id, partition_of

__all__ = [
    "PARTITIONS",
    "Broken",
    "Entry",
    "Head",
    "Hint",
    "Indexer",
    "LogReader",
    "Reference",
    "heads",
    "log_id",
    "partition_of",
]
