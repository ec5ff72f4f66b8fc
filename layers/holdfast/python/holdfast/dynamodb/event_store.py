"""
The event store on DynamoDB: one append is one item, written by one conditional put.

A commit lies at `pk = S#<tenant>#<stream>`, `sk = its first version`. There is no head item: a writer reads
the newest commit and puts its own at the key behind it, so two writers meet at one key and one of them
loses, and is handed the winner's events by the refusal itself. Appends that expect any version, reach several
streams or bring companions are one transaction.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from holdfast.clock import Instant, from_micros, to_micros
from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.reads import Row, get
from holdfast.dynamodb.stream_reader import (
    NoStreamArchive,
    StreamArchive,
    StreamReader,
    commit_of,
    instant,
)
from holdfast.dynamodb.tables import Tables, stream_key
from holdfast.dynamodb.transport import AttributeMap, Cancelled, Reason
from holdfast.dynamodb.writes import Database, clock_fault, companion_action, put_action, put_new, transact_once
from holdfast.errors import Unavailable
from holdfast.retry import Budget, repeat
from holdfast.streams.companions import Companion, CompanionRefused
from holdfast.streams.packing import Codec, Packed, Sealed, fingerprint_of, seal
from holdfast.streams.rules import (
    Seen,
    answer_of,
    check_appends,
    check_fresh,
    empty,
    expected_version,
    find_answers,
    find_stale,
    is_fresh,
    is_suspected,
    mismatch,
    prepare_all,
    recognise,
    wants_any,
    whole,
)
from holdfast.streams.values import (
    ANY,
    CLOCK_SKEW_MAX,
    Append,
    Appended,
    Boundary,
    Commit,
    Expected,
    StaleStream,
    check_tenant,
)

E = TypeVar("E")

ROUNDS: Final = Budget(attempts_max=8, seconds_max=12.0)
"""How often an `any` append looks for the end of its stream again."""


class DynamoEventStores(Generic[E]):
    """Every tenant's streams in one pair of tables, and in the *archive* what has left them."""

    def __init__(
        self, database: Database, codec: Codec[E], tables: Tables, archive: StreamArchive | None = None
    ) -> None:
        self._database = database
        self._codec = codec
        self._tables = tables
        self._archive = archive or NoStreamArchive()

    def of(self, tenant: str, actor: str) -> "DynamoEventStore[E]":
        return DynamoEventStore(
            self._database, self._codec, self._tables, check_tenant(tenant), actor, archive=self._archive
        )


class _Lost(Exception):
    """An `any` append met another writer at the end of its stream."""


class DynamoEventStore(Generic[E]):
    """One tenant's streams, written by one actor. See `EventStore` for the promises."""

    def __init__(
        self, database: Database, codec: Codec[E], tables: Tables, tenant: str, actor: str, *, archive: StreamArchive
    ) -> None:
        self._database = database
        self._codec = codec
        self._tables = tables
        self._tenant = tenant
        self._actor = actor
        self._reader = StreamReader(database, tables.commits, tenant, codec.decode, archive)

    # ----- writing

    def append(
        self,
        stream: str,
        expected: Expected,
        events: Sequence[E],
        *,
        commit_id: str,
        fingerprint: bytes | None = None,
        companions: Sequence[Companion] = (),
    ) -> Appended:
        wish = Append(stream, expected, events, fingerprint)
        if expected == ANY or companions:
            return self.append_many([wish], commit_id=commit_id, companions=companions)[0]
        check_appends([wish], (), self._tenant)
        (content,) = prepare_all(self._codec, [wish], ())
        seen = self._see(wish)
        answers = whole(find_answers([seen], [content], commit_id))
        if answers:
            return answers[0]
        stale = find_stale([wish], [seen])
        if stale:
            raise stale
        sealed = self._seal(seen.end, content, commit_id)
        asked_at = self._instant()
        standing = put_new(
            self._database, self._tables.commits, item_of(sealed), before_attempt=lambda: self._check_clock([seen.end])
        )
        if standing is None:
            return answer_of(sealed, asked_at)
        winner = self._commit(standing, asked_at)
        answer = recognise(winner, commit_id, content)
        if answer:
            return answer
        raise self._stale(winner)

    def append_many(
        self, appends: Sequence[Append[E]], *, commit_id: str, companions: Sequence[Companion] = ()
    ) -> tuple[Appended, ...]:
        check_appends(appends, companions, self._tenant)
        contents = prepare_all(self._codec, appends, companions)

        def attempt() -> tuple[Appended, ...]:
            seen = [self._see(wish) for wish in appends]
            stale = find_stale(appends, seen)
            if wants_any(appends) and (stale or is_suspected(seen, commit_id)):
                recalled = self._recall(appends, contents, commit_id)
                if recalled:
                    return recalled
            answers = whole(find_answers(seen, contents, commit_id))
            if answers:
                return answers
            if stale:
                raise stale
            return self._transact(appends, [each.end for each in seen], contents, commit_id, companions)

        try:
            return repeat(attempt, on=_Lost, budget=ROUNDS, clock=self._database.clock)
        except _Lost as error:
            raise Unavailable(
                "contended",
                "Too many writers meet at the end of this stream. Nothing happened; repeat.",
                retry_after_seconds=1,
            ) from error

    def _see(self, wish: Append[E]) -> Seen:
        """
        Look where the wish wants to stand.

        A commit that expected version n begins at n + 1 for ever, in the table or in the archive, so an author who asks
        again finds it there, however far the stream has gone since.
        """
        if isinstance(wish.expected, Boundary) and is_fresh(wish.expected, self._database.clock):
            return Seen(wish.expected)
        asked_at = self._instant()
        newest = self.last(wish.stream)
        end = newest.boundary if newest else empty(self._tenant, wish.stream, asked_at)
        expected = expected_version(wish)
        # Nobody has taken a place beyond the end; who takes it from now on came later than what is told here.
        if newest is None or expected is None or expected >= end.version:
            return Seen(end, (newest,) if newest else ())
        is_newest = newest.first_version == expected + 1
        winner = newest if is_newest else self._reader.at(wish.stream, expected + 1)
        return Seen(end, tuple(commit for commit in (winner, newest) if commit), winner)

    def _stale(self, winner: Commit[E]) -> StaleStream:
        """Tell who lost at a key where the stream ends by now: it may have gone further than the winner."""
        newest = self.last(winner.stream)
        return StaleStream(winner.stream, max(winner.version, newest.version if newest else 0), winner)

    def _transact(
        self,
        appends: Sequence[Append[E]],
        boundaries: Sequence[Boundary],
        contents: Sequence[Packed],
        commit_id: str,
        companions: Sequence[Companion],
    ) -> tuple[Appended, ...]:
        commits = [
            self._seal(boundary, content, commit_id) for boundary, content in zip(boundaries, contents, strict=True)
        ]
        actions = [{"Put": put_action(self._tables.commits, item_of(sealed))} for sealed in commits]
        actions += [companion_action(companion, self._tables.of_role(companion.table)) for companion in companions]
        if wants_any(appends):
            actions.append({"Put": put_action(self._tables.operations, self._operation_row(commits, commit_id))})
        asked_at = self._instant()
        try:
            transact_once(
                self._database,
                actions,
                # Commits and operation rows never go away again. What only a companion refuses may be allowed later,
                # when an attempt that is still on its way arrives.
                is_final=lambda cancelled: any(_own(cancelled, appends)),
                before_attempt=lambda: self._check_clock(boundaries),
            )
        except Cancelled as cancelled:
            return self._explain(cancelled, appends, contents, commit_id)
        return tuple(answer_of(sealed, asked_at) for sealed in commits)

    def _explain(
        self, cancelled: Cancelled, appends: Sequence[Append[E]], contents: Sequence[Packed], commit_id: str
    ) -> tuple[Appended, ...]:
        """Find in the reasons of a cancelled transaction whether it was done before, or what stands in its way."""
        asked_at = self._instant()
        own = _own(cancelled, appends)
        operation = own[len(appends)] if wants_any(appends) else None
        if operation:
            return self._recorded(from_item(operation), appends, contents, commit_id)
        winners = [self._commit(item, asked_at) if item else None for item in own[: len(appends)]]
        answers = [recognise(winner, commit_id, content) for winner, content in zip(winners, contents, strict=True)]
        if any(answers):
            return whole(answers)
        for wish, winner in zip(appends, winners, strict=True):
            if winner and wish.expected != ANY:
                raise self._stale(winner)
        if any(winners):
            raise _Lost
        self._refuse_companion(cancelled.reasons[len(appends) :])
        raise cancelled  # a reason that is no condition's: a fault of ours

    @staticmethod
    def _refuse_companion(reasons: Sequence[Reason]) -> None:
        for index, reason in enumerate(reasons):
            if reason.code == "ConditionalCheckFailed":
                raise CompanionRefused(index, from_item(reason.item) if reason.item else None)

    def _operation_row(self, commits: Sequence[Sealed], commit_id: str) -> AttributeMap:
        """Remember where an operation that expected any version came to stand; nothing else could tell it later."""
        return to_item(
            {
                "pk": self._operation_key(commit_id),
                "sk": 0,
                "fp": fingerprint_of(sealed.fingerprint for sealed in commits),
                "places": [
                    [sealed.stream, sealed.first_version, len(sealed.events), to_micros(sealed.recorded_at)]
                    for sealed in commits
                ],
            }
        )

    def _recall(self, appends: Sequence[Append[E]], contents: Sequence[Packed], commit_id: str) -> tuple[Appended, ...]:
        """Read the answer of an operation that expected any version, if it was written."""
        row = self._operation(commit_id)
        return self._recorded(row, appends, contents, commit_id) if row else ()

    def _operation(self, commit_id: str) -> Row | None:
        return get(self._database, self._tables.operations, self._operation_key(commit_id), 0)

    def _operation_key(self, commit_id: str) -> str:
        return f"O#{self._tenant}#{commit_id}"

    def _recorded(
        self, row: Row, appends: Sequence[Append[E]], contents: Sequence[Packed], commit_id: str
    ) -> tuple[Appended, ...]:
        is_same = row["fp"] == fingerprint_of(content.fingerprint for content in contents)
        if not is_same or [place[0] for place in row["places"]] != [wish.stream for wish in appends]:
            raise mismatch()
        return _answers_in(row, commit_id)

    def _seal(self, boundary: Boundary, content: Packed, commit_id: str) -> Sealed:
        return seal(boundary, content, commit_id=commit_id, actor=self._actor, now=self._database.clock.now())

    def _check_clock(self, boundaries: Sequence[Boundary]) -> None:
        """Refuse an attempt with a clock that would lift a stream's time for good, or on a boundary grown old."""
        skew = self._database.skew
        if skew is not None and abs(skew) > CLOCK_SKEW_MAX:
            raise clock_fault(skew)
        for boundary in boundaries:
            check_fresh(boundary, self._database.clock)

    # ----- reading

    def recall(self, commit_id: str) -> tuple[Appended, ...]:
        row = self._operation(commit_id)
        return _answers_in(row, commit_id) if row else ()

    def read(
        self, stream: str, after: int = 0, *, until: int | None = None, at: datetime | None = None
    ) -> Iterator[Commit[E]]:
        return self._reader.read(stream, after, until, at)

    def read_back(self, stream: str, before: int | None = None) -> Iterator[Commit[E]]:
        return self._reader.read_back(stream, before)

    def last(self, stream: str) -> Commit[E] | None:
        return self._reader.last(stream)

    def _commit(self, item: AttributeMap, asked_at: Instant) -> Commit[E]:
        row = from_item(item)
        stream = row["pk"].split("#", 2)[2]
        return commit_of(self._tenant, stream, row, self._codec.decode, asked_at)

    def _instant(self) -> Instant:
        return instant(self._database.clock)


def _own(cancelled: Cancelled, appends: Sequence[Append[Any]]) -> list[AttributeMap | None]:
    """Pick the items that stand at this operation's own keys: one for each commit, and that of the operation row."""
    items = [reason.item for reason in cancelled.reasons]
    return items[: len(appends)] + (items[-1:] if wants_any(appends) else [])


def _answers_in(row: Row, commit_id: str) -> tuple[Appended, ...]:
    """Read out of an operation's row where its events stand."""
    return tuple(
        Appended(
            stream=stream,
            first_version=first_version,
            version=first_version + count - 1,
            commit_id=commit_id,
            recorded_at=from_micros(recorded_at),
            is_replay=True,
        )
        for stream, first_version, count, recorded_at in row["places"]
    )


def item_of(sealed: Sealed) -> AttributeMap:
    return to_item(
        {
            "pk": stream_key(sealed.tenant, sealed.stream),
            "sk": sealed.first_version,
            "n": len(sealed.events),
            "ev": sealed.packed,
            "commit_id": sealed.commit_id,
            "fp": sealed.fingerprint,
            "actor": sealed.actor,
            "rt": to_micros(sealed.recorded_at),
            "tlo": to_micros(sealed.earliest),
            "thi": to_micros(sealed.latest),
            "prev": sealed.previous_hash,
            "root": sealed.events_root,
            "hash": sealed.hash,
        }
    )
