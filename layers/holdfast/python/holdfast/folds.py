"""
Folds: the state of a stream is its events, applied in version order to an empty one.

An event counts if its version, its own time and the time it was recorded all lie within what was asked.
Order is always that of versions. An event that arrived late (an early time at a high version) counts for
its own time: the sequence is filtered, never cut.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from holdfast.streams.values import Commit, category_of


class FoldEvent(msgspec.Struct, frozen=True):
    """What a reducer sees of a stored event."""

    type: str
    time: datetime | None = None
    subject: str | None = None
    datacontenttype: str | None = None
    data: Any = msgspec.UNSET

    @property
    def has_data(self) -> bool:
        return self.data is not msgspec.UNSET

    @property
    def media_type(self) -> str:
        """The content type without its parameters; JSON if none is said."""
        return (self.datacontenttype or "application/json").split(";", 1)[0].strip().lower()


class NotApplicable(Exception):
    """The event cannot be applied to this state. It changes nothing, and is reported."""


Apply = Callable[[Any, FoldEvent], Any]


class Reducer(msgspec.Struct, frozen=True):
    """
    How events of one category become state.

    *apply* may change and return the state it is given, which belongs to the fold alone; it raises
    `NotApplicable` before it has changed anything. Raise *version* whenever results change.
    """

    name: str
    version: int
    apply: Apply
    initial: Callable[[], Any] = dict

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"


class Within(msgspec.Struct, frozen=True):
    """What counts: everything, unless a bound is set. The bounds are combined with AND."""

    version: int | None = None
    at: datetime | None = None
    known_at: datetime | None = None


class Folded(msgspec.Struct, frozen=True):
    """A state, and what it was made of."""

    state: Any
    version: int
    """The newest version that counted; 0 if none did."""
    events_applied: int
    unapplied: tuple[int, ...]


_DECODER: Final = msgspec.json.Decoder(FoldEvent)


def fold(commits: Iterable[Commit[bytes]], reducer: Reducer, within: Within) -> Folded:
    """Apply the events of *commits*, which come in version order, as far as they count."""
    state, newest, applied, unapplied = reducer.initial(), 0, 0, []
    for commit in commits:
        if within.known_at is not None and commit.recorded_at > within.known_at:
            break  # recorded times rise within a stream
        for version, stored in enumerate(commit.events, start=commit.first_version):
            if within.version is not None and version > within.version:
                break
            event = _DECODER.decode(stored)
            if within.at is not None and (event.time or commit.recorded_at) > within.at:
                continue
            newest = version
            try:
                state = reducer.apply(state, event)
                applied += 1
            except NotApplicable:
                unapplied.append(version)
    return Folded(state, newest, applied, tuple(unapplied))


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396, section 2), changing *target* where it is an object."""
    if not isinstance(patch, dict):
        return patch
    merged = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = merge(merged.get(name), value)
        else:
            merged[name] = value
    return merged


def apply_data(state: Any, event: FoldEvent) -> Any:
    """
    Apply an event's data: a JSON Patch (RFC 6902) if it says it is one, else a merge patch.

    Data that is not JSON, and no data, change nothing.
    """
    media_type = event.media_type
    if not event.has_data:
        return state
    if media_type == "application/json-patch+json":
        return _patched(state, event.data)
    if media_type == "application/json" or media_type.endswith("+json"):
        return merge(state, event.data)
    return state


def _patched(state: Any, operations: Any) -> Any:
    """Apply a JSON Patch to a copy, so that one that fails half way has changed nothing."""
    import jsonpatch  # noqa: PLC0415 - few streams hold patches; the others do not pay for it

    try:
        return jsonpatch.JsonPatch(operations).apply(state)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, ValueError, KeyError) as error:
        # The last three are how the library meets operations that are no operations at all.
        raise NotApplicable(str(error)) from error


MERGE_PATCH: Final = Reducer("merge-patch", 1, apply_data)

A = TypeVar("A", bound=Apply)


class Reducers:
    """The reducers of a service, by stream category; `merge-patch` for all others."""

    def __init__(self) -> None:
        self._by_category: dict[str, Reducer] = {}

    def register(self, category: str, *, version: int, initial: Callable[[], Any] = dict) -> Callable[[A], A]:
        """Make the decorated function the reducer of every stream of *category*."""

        def keep(apply: A) -> A:
            if category in self._by_category:
                raise ValueError(f"category {category!r} has a reducer already")
            self._by_category[category] = Reducer(category, version, apply, initial)
            return apply

        return keep

    def of(self, stream: str) -> Reducer:
        return self._by_category.get(category_of(stream), MERGE_PATCH)
