"""
The keys of data subjects: made on first use, kept wrapped in one row each, and destroyed when a subject is erased.

A subject is `live` until it is `erased`, once and for good, and while a hold runs it cannot be. Whatever that is
decided on lies in the subject's one row, so a single condition, the row's version, covers all of it. The row changes as
the companion of the event that tells of it: both happen, or neither.

After an erasure no item holds plaintext of the subject's content:

* Content is sealed before it is written anywhere. Commits, and with them the archive and every export, hold boxes;
  headers, hashes and the log's leaves are made of those; the fingerprint of a request holds a digest under the key.
* What is derived holds none: rows of views are made of envelopes, and a fold that sealed content went into is kept
  under its subject's key, or not at all.
* A key lies in two places only: wrapped, in its row, where the erasure overwrites it; and in the memory of processes
  that used it. None uses it for longer than KEY_AGE_MAX; it lies there until it is asked for again, or another is read,
  or the process ends: an idle sandbox holds it as long as it lives. It has no text that a log line could show. (Memory
  that was freed is not wiped.)

What remains is a backup of the table, which can bring a wrapped key back for BACKUPS_KEPT: *final_at* says until when.
"""

from holdfast.subjects.cache import KEY_AGE_MAX, KEYS_CACHED_MAX, KeyCache
from holdfast.subjects.keys import ROLE, SubjectKeys
from holdfast.subjects.rules import BACKUPS_KEPT, HOLDS_MAX, REASON_BYTES_MAX, Hold, Subject

__all__ = [
    "BACKUPS_KEPT",
    "HOLDS_MAX",
    "KEYS_CACHED_MAX",
    "KEY_AGE_MAX",
    "REASON_BYTES_MAX",
    "ROLE",
    "Hold",
    "KeyCache",
    "Subject",
    "SubjectKeys",
]
