"""
The next step of a generation: which events it takes, what its rows and its checkpoint are afterwards. Pure.

An event whose view raises is parked with its stream, and the rest of the batch goes on without them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from holdfast.dynamodb.attributes import item_bytes, to_item
from holdfast.projections.views import Attributes, Checkpoint, Counting, Key, Listing, Recorded, Tally

EVENTS_MAX: Final = 250
"""Events between two checkpoints."""
ROWS_MAX: Final = 85
"""Rows that a counting view changes in one transaction, beside the checkpoint and what is parked."""
PARKED_MAX: Final = 5
"""Streams parked for one reason by one batch (their rows cannot be named, or not be made): rows of the transaction."""
KEY_BYTES_MAX: Final = 900
"""Of each half of a row's key; DynamoDB takes 2,048 and 1,024, and the first is lengthened by whose row it is."""
ROW_BYTES_MAX: Final = 400_000
"""Of a row's attributes: DynamoDB's 400 KB (409,600 bytes), less the key."""
BATCH_BYTES_MAX: Final = 3_500_000
"""Of the rows that a counting view changes in one transaction: DynamoDB's 4 MB, less keys and what is parked."""
REASON_CHARACTERS_MAX: Final = 500
"""Kept of what went wrong with a parked event."""


class Parked(msgspec.Struct, frozen=True):
    """A stream that stands still in a view: the first event that it could not take, and why."""

    partition: int
    stream: str
    version: int
    position: int
    reason: str


@dataclass(frozen=True)
class Selection:
    """Events in order of position, of which those count that had been recorded by *known_at*."""

    events: Iterable[Recorded]
    known_at: datetime | None = None

    def counts(self, event: Recorded) -> bool:
        return self.known_at is None or event.recorded_at <= self.known_at


class Batch(msgspec.Struct, frozen=True):
    """What a generation holds after its next step."""

    checkpoint: Checkpoint
    rows: Mapping[Key, Attributes]
    events: tuple[Recorded, ...]
    """Those that were taken, in order."""
    parked: tuple[Parked, ...]
    """Each stream once, at the first of its events that could not be taken."""
    is_all: bool
    """Whether no event was left for the next step."""


class Chosen(msgspec.Struct, frozen=True):
    """Events whose rows fit into one transaction, with the rows that each changes."""

    events: tuple[tuple[Recorded, tuple[Key, ...]], ...]
    passed: tuple[Recorded, ...]
    """All events up to the last chosen one, those that do not count and those of parked streams among them."""
    parked: tuple[Parked, ...]
    is_all: bool

    @property
    def keys(self) -> set[Key]:
        return {key for _, keys in self.events for key in keys}


class _Walk:
    """Events one after the other, around the streams that stand still."""

    def __init__(self, selection: Selection, standing_still: frozenset[str]) -> None:
        self._selection = selection
        self._standing_still = set(standing_still)
        self.passed: list[Recorded] = []
        self.parked: list[Parked] = []
        self.is_all = False
        """Whether the events ran out, and nothing else ended the walk."""

    def __iter__(self) -> Iterator[Recorded]:
        for event in self._selection.events:
            if len(self.passed) == EVENTS_MAX or len(self.parked) == PARKED_MAX:
                return
            self.passed.append(event)
            if self._selection.counts(event) and event.stream not in self._standing_still:
                yield event
        self.is_all = True

    def park(self, event: Recorded, error: Exception) -> None:
        self._standing_still.add(event.stream)
        self.parked.append(parked_by(event, error))

    def put_back(self) -> None:
        """Leave the last event for the next batch."""
        self.passed.pop()


def parked_by(event: Recorded, error: Exception) -> Parked:
    reason = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS_MAX]
    return Parked(event.partition, event.stream, event.version, event.position, reason)


def listing(view: Listing, before: Checkpoint, selection: Selection, standing_still: frozenset[str]) -> Batch:
    """Make the rows of the next events of a listing view."""
    walk = _Walk(selection, standing_still)
    rows: dict[Key, Attributes] = {}
    tally, taken = before.tally, list[Recorded]()
    for event in walk:
        try:
            made, counted = dict(view.rows(event)), tally
            for key, attributes in made.items():
                _weighed(key, attributes)
                counted = counted.plus(key, attributes)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this event's, and the others go on
            walk.park(event, error)
            continue
        tally = counted
        rows |= made
        taken.append(event)
    after = _reached(before, walk.passed, taken, tally, walk.parked)
    return Batch(after, rows, tuple(taken), tuple(walk.parked), walk.is_all)


def chosen(view: Counting, selection: Selection, standing_still: frozenset[str]) -> Chosen:
    """Choose the next events of a counting view, as many as one transaction takes."""
    walk = _Walk(selection, standing_still)
    events: list[tuple[Recorded, tuple[Key, ...]]] = []
    keys: set[Key] = set()
    for event in walk:
        try:
            named = tuple(dict.fromkeys(map(_fitting, view.keys(event))))
            if len(named) > ROWS_MAX:
                raise ValueError(f"An event may change {ROWS_MAX} rows, and this one changes {len(named)}.")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - as above
            walk.park(event, error)
            continue
        if len(keys | set(named)) > ROWS_MAX:
            walk.put_back()
            break
        keys |= set(named)
        events.append((event, named))
    return Chosen(tuple(events), tuple(walk.passed), tuple(walk.parked), walk.is_all)


def counting(view: Counting, before: Checkpoint, selected: Chosen, standing: Mapping[Key, Attributes]) -> Batch:
    """Change the rows of a counting view by the events chosen; *standing* is what its rows hold now."""
    rows: dict[Key, Attributes] = {}
    weights: dict[Key, int] = {}
    parked, still, taken = list(selected.parked), set[str](), list[Recorded]()
    left: Recorded | None = None
    for event, keys in selected.events:
        if event.stream in still:
            continue
        try:
            changed = {key: view.change(key, rows.get(key, standing.get(key)), event) for key in keys}
            heavier = weights | _weights(changed, standing)
            is_too_much = sum(heavier.values()) > BATCH_BYTES_MAX
            if is_too_much and not taken:
                raise ValueError(f"An event may change {BATCH_BYTES_MAX} bytes of rows, and this one changes more.")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - as above
            if len(still) == PARKED_MAX:
                left = event
                break
            still.add(event.stream)
            # It may be parked already, by a later event whose rows could not be named.
            parked = [*(each for each in parked if each.stream != event.stream), parked_by(event, error)]
            continue
        if is_too_much:
            left = event
            break
        rows |= changed
        weights = heavier
        taken.append(event)
    passed = selected.passed
    if left:  # for the next batch, with what follows
        passed = tuple(each for each in passed if each.position < left.position)
        parked = [each for each in parked if each.position < left.position]
    tally = before.tally
    for key, attributes in rows.items():
        tally = (tally.minus(key, standing[key]) if key in standing else tally).plus(key, attributes)
    after = _reached(before, passed, taken, tally, parked)
    return Batch(after, rows, tuple(taken), tuple(parked), is_all=selected.is_all and left is None)


def _reached(
    before: Checkpoint, passed: Sequence[Recorded], taken: Sequence[Recorded], tally: Tally, parked: Sequence[Parked]
) -> Checkpoint:
    times = [_time_of(event) for event in taken]
    if before.earliest and before.latest:
        times += [before.earliest, before.latest]
    return Checkpoint(
        position=passed[-1].position if passed else before.position,
        tally=tally,
        recorded_at=max([before.recorded_at, *(event.recorded_at for event in passed)]),
        earliest=min(times, default=None),
        latest=max(times, default=None),
        parked=before.parked + len(parked),
    )


def _weights(changed: Mapping[Key, Attributes], standing: Mapping[Key, Attributes]) -> dict[Key, int]:
    """
    Count what changed rows take of a transaction: the bytes that they have or had, whichever is more.

    Raises whatever is wrong with them, as `_weighed`.
    """
    for key, attributes in changed.items():
        Tally().plus(key, attributes)  # what cannot be tallied cannot be kept
    return {key: max(_weighed(key, row), _weight(standing.get(key))) for key, row in changed.items()}


def _weighed(key: Key, attributes: Attributes) -> int:
    """
    Count the bytes of a row that the table takes.

    Raises whatever is wrong with it: what would be refused must park the event, and hold up no other.
    """
    _fitting(key)
    weight = _weight(attributes)
    if weight > ROW_BYTES_MAX:
        raise ValueError(f"A row takes up to {ROW_BYTES_MAX} bytes, and one takes {weight}.")
    return weight


def _weight(attributes: Attributes | None) -> int:
    return item_bytes(to_item(attributes)) if attributes else 0


def _fitting(key: Key) -> Key:
    for half in (key.pk, key.sk):
        if not 0 < len(half.encode()) <= KEY_BYTES_MAX:
            raise ValueError(
                f"A half of a row's key takes 1 to {KEY_BYTES_MAX} bytes, and one takes {len(half.encode())}."
            )
    return key


def _time_of(event: Recorded) -> datetime:
    """Read when an event happened; one that does not say so happened when it was recorded."""
    try:
        return _TIMED.decode(event.stored).time or event.recorded_at
    except msgspec.MsgspecError:
        return event.recorded_at


class _Timed(msgspec.Struct):
    time: datetime | None = None


_TIMED: Final = msgspec.json.Decoder(_Timed)
