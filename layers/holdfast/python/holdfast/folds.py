"""
Folds: the state of a stream is its events, applied in version order to an empty one.

An event counts if its version, its own time and the time it was recorded all lie within what was asked.
Order is always that of versions. An event that arrived late (an early time at a high version) counts for
its own time: the sequence is filtered, never cut.

An event never takes a state away: what it must not do (nest the state too deep, copy without end) makes it not
applicable, and a state that outgrows every answer is given up while it still fits into memory.

Sealed events (see `holdfast.sealing`) are opened on the way. Those whose key is gone count, and change nothing.

Events are stored as they were written, for ever; upcasters make of an old one what reducers know today.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, TypeVar

import msgspec

from holdfast import json_patch
from holdfast.errors import Invalid
from holdfast.sealing import FORM as SEALED_FORM
from holdfast.streams.values import Commit, category_of
from holdfast.strict_json import DEPTH_MAX

STATE_BYTES_MAX: Final = 5_000_000
"""
A state, as JSON: what can be answered, and what an event may leave behind on the way.

It is weighed when this much may have come to it since the last time, so that weighing costs an event next to nothing.
Between two weighings it can thus take twice as much.
"""


class FoldEvent(msgspec.Struct, frozen=True):
    """What a reducer sees of a stored event."""

    type: str
    time: datetime | None = None
    subject: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    data: Any = msgspec.UNSET
    sealed: Any = None
    shredkey: Any = None

    @property
    def is_sealed(self) -> bool:
        return bool(self.sealed == SEALED_FORM)

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

Open = Callable[[Commit[bytes], bytes], bytes | None]
"""Opens a stored, sealed event of a commit: JSON with its `data`, or None if its key is gone."""


Upcast = Callable[[FoldEvent], FoldEvent]
"""
Makes of an event what it would say in a newer schema: another `type` or `dataschema`, and the data that goes with it.

It is a pure function. That an event counts was decided before, by what is stored of it.
"""


class Upcaster(msgspec.Struct, frozen=True):
    """What is made of events of one type and `dataschema`. Raise *version* whenever results change."""

    type: str
    dataschema: str | None
    version: int
    upcast: Upcast


class Upcasters:
    """The upcasters of a service, at most one for a type and `dataschema`. They are applied one after the other."""

    def __init__(self) -> None:
        self._by_schema: dict[tuple[str, str | None], Upcaster] = {}

    def add(self, upcaster: Upcaster) -> None:
        schema = (upcaster.type, upcaster.dataschema)
        if schema in self._by_schema:
            raise ValueError(f"events {schema} have an upcaster already")
        self._by_schema[schema] = upcaster

    @property
    def label(self) -> str:
        """Tell apart what was folded with other ones, or with other versions of them; empty where there are none."""
        known = sorted(
            (each.type, each.dataschema is not None, each.dataschema or "", each.version)
            for each in self._by_schema.values()
        )
        return f"+{sha256(repr(known).encode()).hexdigest()[:_LABEL_DIGITS]}" if known else ""

    def upcast(self, event: FoldEvent, stored_bytes: int) -> tuple[FoldEvent, int]:
        """
        Make of an event what is applied of it, and say how many bytes that may hold.

        Raises:
            NotApplicable: an upcaster fails, or leads in a circle.
        """
        if (event.type, event.dataschema) not in self._by_schema:
            return event, stored_bytes
        try:
            current = self._through(event)
            if not current.has_data:
                return current, stored_bytes
            # Written and read, so that it is JSON and nobody else's: a fold changes what it is given.
            data = msgspec.json.encode(current.data)
            return msgspec.structs.replace(current, data=msgspec.json.decode(data)), stored_bytes + len(data)
        except Exception as error:
            raise NotApplicable(f"It could not be upcast: {error!r}") from error

    def _through(self, event: FoldEvent) -> FoldEvent:
        for _ in range(len(self._by_schema) + 1):
            upcaster = self._by_schema.get((event.type, event.dataschema))
            if upcaster is None:
                return event
            event = upcaster.upcast(event)
        raise NotApplicable("The upcasters lead in a circle.")


_LABEL_DIGITS: Final = 8
NO_UPCASTERS: Final = Upcasters()


def nothing_copied(_event: FoldEvent) -> int:
    return 0


class Reducer(msgspec.Struct, frozen=True):
    """
    How events of one category become state.

    *apply* may change and return the state it is given, which belongs to the fold alone; it raises
    `NotApplicable` before it has changed anything. Raise *version* whenever results change. If *apply* adds more to
    the state than the event itself holds, *copied_bytes_max* bounds how much more.
    """

    name: str
    version: int
    apply: Apply
    initial: Callable[[], Any] = dict
    copied_bytes_max: Callable[[FoldEvent], int] = nothing_copied
    upcasters: Upcasters = NO_UPCASTERS

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}{self.upcasters.label}"


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
    events_erased: int = 0
    """Those that changed nothing because their key is gone."""
    subjects: tuple[str, ...] = ()
    """Whose sealed content is in the state: what is kept of it must be destroyed with their keys."""


class Found(msgspec.Struct, frozen=True):
    """A state, and where its stream ended when it was read."""

    folded: Folded
    last_version: int
    """0 if there is no such stream."""


class _Opened(msgspec.Struct):
    data: Any = msgspec.UNSET


class _When(msgspec.Struct):
    time: datetime | None = None


_WHEN: Final = msgspec.json.Decoder(_When)
_DECODER: Final = msgspec.json.Decoder(FoldEvent)
_OPENED: Final = msgspec.json.Decoder(_Opened)


def fold(
    commits: Iterable[Commit[bytes]],
    reducer: Reducer,
    within: Within,
    *,
    start: Folded | None = None,
    opened: Open | None = None,
) -> Folded:
    """
    Apply the events of *commits*, which come in version order, as far as they count.

    With *start*, an earlier fold that every event up to *commits* counted in, its state goes on from there, and
    belongs to this fold from now on. Sealed events are opened by *opened*; without it they change nothing.

    Raises:
        Invalid: 422 `state_too_large`.
    """
    begun = start or Folded(reducer.initial(), 0, 0, ())
    state, newest, applied, unapplied = begun.state, begun.version, begun.events_applied, list(begun.unapplied)
    erased, subjects = begun.events_erased, set(begun.subjects)
    added_bytes_max = 0
    for commit in commits:
        if within.known_at is not None and commit.recorded_at > within.known_at:
            break  # recorded times rise within a stream
        for version, stored in enumerate(commit.events, start=commit.first_version):
            if within.version is not None and version > within.version:
                break
            # Most of what is read for a state at a time happened after it, and of that only the time is wanted.
            if within.at is not None and (_WHEN.decode(stored).time or commit.recorded_at) > within.at:
                continue
            event, newest = _DECODER.decode(stored), version
            if event.is_sealed:
                content = opened(commit, stored) if opened else None
                if content is None:
                    erased += opened is not None
                    continue
                subjects.add(event.shredkey)
                event = msgspec.structs.replace(event, data=_OPENED.decode(content).data)
            try:
                event, event_bytes = reducer.upcasters.upcast(event, len(stored))
                state = reducer.apply(state, event)
                applied += 1
            except NotApplicable:
                unapplied.append(version)
                continue
            added_bytes_max += event_bytes + reducer.copied_bytes_max(event)
            if added_bytes_max > STATE_BYTES_MAX:
                encode_state(state)
                added_bytes_max = 0
    return Folded(state, newest, applied, tuple(unapplied), erased, tuple(sorted(subjects)))


def encode_state(state: Any) -> bytes:
    """
    Write a state as JSON.

    Raises:
        Invalid: 422 `state_too_large`.
    """
    encoded = msgspec.json.encode(state)
    if len(encoded) > STATE_BYTES_MAX:
        raise Invalid(
            "state_too_large",
            f"This state takes {len(encoded)} bytes; {STATE_BYTES_MAX} can be answered. Read the events and fold them.",
            status=422,
        )
    return encoded


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

    Raises:
        NotApplicable: the patch does not fit, passes a bound (see `holdfast.json_patch`), or is nested too deep.
    """
    if not event.has_data:
        return state
    media_type = event.media_type
    if media_type == _JSON_PATCH:
        return _patched(state, event.data)
    if media_type == "application/json" or media_type.endswith("+json"):
        # A merged object stands as deep in the state as in the patch or in the state before: this bounds them all.
        if json_patch.is_deeper(event.data, DEPTH_MAX):
            raise NotApplicable(f"The patch is nested over {DEPTH_MAX} deep.")
        return merge(state, event.data)
    return state


def _patched(state: Any, operations: Any) -> Any:
    try:
        return json_patch.apply(state, operations)
    except json_patch.PatchRefused as error:
        raise NotApplicable(str(error)) from error


def _copied_bytes_max(event: FoldEvent) -> int:
    """Bound what a JSON Patch adds beside the values it holds: nothing, unless it copies."""
    if event.media_type != _JSON_PATCH or not isinstance(event.data, list):
        return 0
    return json_patch.WORK_MAX if any(operation.get("op") == "copy" for operation in event.data) else 0


_JSON_PATCH: Final = "application/json-patch+json"

MERGE_PATCH: Final = Reducer("merge-patch", 1, apply_data, copied_bytes_max=_copied_bytes_max)

A = TypeVar("A", bound=Apply)
U = TypeVar("U", bound=Upcast)


class Reducers:
    """The reducers of a service, by stream category; `merge-patch` for all others. Upcasters serve all of them."""

    def __init__(self) -> None:
        self._by_category: dict[str, Reducer] = {}
        self._upcasters = Upcasters()
        self._other = msgspec.structs.replace(MERGE_PATCH, upcasters=self._upcasters)

    def register(self, category: str, *, version: int, initial: Callable[[], Any] = dict) -> Callable[[A], A]:
        """Make the decorated function the reducer of every stream of *category*."""

        def keep(apply: A) -> A:
            if category in self._by_category:
                raise ValueError(f"category {category!r} has a reducer already")
            self._by_category[category] = Reducer(category, version, apply, initial, upcasters=self._upcasters)
            return apply

        return keep

    def upcaster(self, event_type: str, *, dataschema: str | None = None, version: int) -> Callable[[U], U]:
        """Have the decorated function applied to every event of *event_type* and *dataschema* before it is folded."""

        def keep(upcast: U) -> U:
            self._upcasters.add(Upcaster(event_type, dataschema, version, upcast))
            return upcast

        return keep

    def of(self, stream: str) -> Reducer:
        return self._by_category.get(category_of(stream), self._other)
