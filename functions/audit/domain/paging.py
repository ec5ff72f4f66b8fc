"""Pages of a stream's events, as much as one answer carries: pure."""

from collections.abc import Iterable
from typing import Final

import msgspec

from holdfast import cloudevents
from holdfast.streams import Commit

PAGE_BYTES_MAX: Final = 4_000_000
"""A page of events, or a winner's, as they travel; a Lambda's answer holds 6 MB."""


class Page(msgspec.Struct, frozen=True):
    """A page of events, each as the JSON it leaves in."""

    events: tuple[bytes, ...]
    next_after: int | None


def page_of(commits: Iterable[Commit[bytes]], *, after: int, limit: int, newest_first: bool) -> Page:
    """
    Take events beyond *after* in their order, until *limit* of them or a page's bytes are taken.

    *next_after* is where the next page begins, or None where nothing follows. *commits* come in the order
    asked for, and only as many are drawn as the page needs.
    """
    taken: list[bytes] = []
    taken_bytes = 0
    last_taken = after
    for commit in commits:
        events = cloudevents.rendered(commit)
        for event in reversed(events) if newest_first else events:
            version = event["streamversion"]
            if after and (version >= after if newest_first else version <= after):
                continue
            encoded = msgspec.json.encode(event)
            travelling = travelling_bytes(encoded)
            if taken and (len(taken) == limit or taken_bytes + travelling > PAGE_BYTES_MAX):
                return Page(tuple(taken), last_taken)
            taken.append(encoded)
            taken_bytes += travelling
            last_taken = version
    return Page(tuple(taken), None)


def travelling_bytes(encoded: bytes) -> int:
    """Bound what JSON takes as a string inside Lambda's JSON answer: escapes double, other than ASCII may treble."""
    if encoded.isascii():
        return len(encoded) + encoded.count(b'"') + encoded.count(b"\\")
    return 3 * len(encoded)
