"""Events as these tests write them."""

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.streams import Commit


def event(number: int, **more: Any) -> bytes:
    return msgspec.json.encode({"type": "test.happened", "id": str(number), **more}, order="sorted")


def events_of(commits: Sequence[Commit[bytes]]) -> list[bytes]:
    return [stored for commit in commits for stored in commit.events]
