"""
The three writes that survive a lost reply; the kernel offers no other.

A reply can be lost after the write happened. Whoever repeats then meets its own write and must not
take it for somebody else's. So a change is

1. a **put that knows its author** (`put_new`): the key must be free, and if it is not, what stands
   there says whether it was us;
2. **one transaction with an operation row** (`transact_once`): a row that must be new, named after the
   operation, looked at when it is not;
3. a **guarded update** (`update_guarded`): a condition that is false once it has been applied, and an
   update that recognises itself in the row that comes back.

A write whose outcome is unknown is repeated as it was, same bytes and same ids, until the answer is
definite. If that does not come in time, the outcome stays `Uncertain`; it is never shown as failed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from holdfast.clock import Clock, SystemClock
from holdfast.dynamodb.attributes import from_item, to_attribute, to_item
from holdfast.dynamodb.transport import (
    Answer,
    AttributeMap,
    Busy,
    Cancelled,
    Refused,
    Told,
    Transport,
    Unknown,
    is_clock_fault,
)
from holdfast.errors import ServiceError, Throttled, Unavailable, Uncertain
from holdfast.ids import derived
from holdfast.retry import Budget, repeat
from holdfast.streams.companions import AtLeast, Change, Check, Companion, Condition, Is, Missing, Put, Row, Update

CALLS: Final = Budget(attempts_max=8, seconds_max=12.0)
"""How often and how long one call is repeated. It ends well inside API Gateway's 29 s."""


@dataclass
class Database:
    """DynamoDB as the kernel uses it: a transport, a clock, and how far the two disagree."""

    transport: Transport
    clock: Clock
    budget: Budget = CALLS
    skew: timedelta | None = None
    """How far ahead of the store our clock was at the last answer; None before the first."""

    @classmethod
    def connect(cls, transport: Transport, clock: Clock | None = None) -> "Database":
        return cls(transport, clock or SystemClock())

    def read(self, operation: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a call that changes nothing, repeated within the budget."""
        try:
            return self._repeat(lambda: self._attempt(operation, request)).body
        except (Busy, Unknown) as error:
            raise _nothing_happened(error) from error

    def write(
        self,
        operation: str,
        request: Mapping[str, Any],
        *,
        is_final: Callable[[Refused | Cancelled], bool],
        before_attempt: Callable[[], None] | None = None,
    ) -> Mapping[str, Any]:
        """
        Make a call that changes something, repeated as it is until the answer is definite.

        *before_attempt* may forbid an attempt by raising a `ServiceError`. *is_final* says whether what was refused
        now can never be granted: an attempt that got no answer may still be on its way (a signed request lives for 15
        minutes), and a condition that fails today may hold when it arrives.

        Raises:
            Refused, Cancelled: definite answers, which the caller must compare with its own write.
            Throttled, Unavailable: nothing happened.
            Uncertain: it may have happened.
        """
        may_have_happened = False

        def attempt() -> Answer:
            nonlocal may_have_happened
            if before_attempt:
                before_attempt()
            try:
                return self._attempt(operation, request)
            except Unknown:
                may_have_happened = True
                raise

        try:
            return self._repeat(attempt).body
        except Exception as error:
            is_told = isinstance(error, Refused | Cancelled) and is_final(error)
            if may_have_happened and not is_told:
                raise Uncertain(
                    "outcome_unknown",
                    "The store did not say whether this was written. Ask again with the same idempotency key.",
                    retry_after_seconds=1,
                ) from error
            if isinstance(error, Busy):
                raise _nothing_happened(error) from error
            raise

    def read_batch(self, asked: Mapping[str, Any], take: Callable[[Mapping[str, Any]], None]) -> None:
        """
        Read the keys *asked* for by table; *take* is handed what each answer brings, until nothing is left out.

        Raises:
            Throttled, Unavailable: as `read`.
        """
        try:
            self._batch("BatchGetItem", asked, "UnprocessedKeys", take)
        except (Busy, Unknown) as error:
            raise _nothing_happened(error) from error

    def write_batch(self, asked: Mapping[str, Any]) -> None:
        """
        Make the puts and deletes *asked* for by table, until none is left out.

        They may be made again at any time: each changes the same whenever it is made.

        Raises:
            Throttled, Unavailable: some may have been made; repeat.
        """
        try:
            self._batch("BatchWriteItem", asked, "UnprocessedItems", lambda _answer: None)
        except (Busy, Unknown) as error:
            raise _unanswered(error, "Some of it may be done; repeat.") from error

    def _batch(
        self, operation: str, asked: Mapping[str, Any], left_out: str, take: Callable[[Mapping[str, Any]], None]
    ) -> None:
        left = asked

        def attempt() -> Answer:
            nonlocal left
            answer = self._attempt(operation, {"RequestItems": left})
            take(answer.body)
            left = answer.body.get(left_out) or {}
            if left:
                raise _LeftOut(left_out, is_throttle=True)
            return answer

        self._repeat(attempt)

    def _repeat(self, attempt: Callable[[], Answer]) -> Answer:
        return repeat(attempt, on=(Busy, Unknown), budget=self.budget, clock=self.clock)

    def _attempt(self, operation: str, request: Mapping[str, Any]) -> Answer:
        try:
            answer = self.transport.call(operation, request)
        except Told as told:
            self._compare_clocks(told.date)
            if is_clock_fault(told):
                raise clock_fault(self.skew) from told
            raise
        self._compare_clocks(answer.date)
        return answer

    def _compare_clocks(self, date: datetime | None) -> None:
        if date:
            self.skew = self.clock.now() - date


class _LeftOut(Busy):
    """An answer did a part of what was asked: it ends at 16 MB, or a table is asked too much at once."""


def _nothing_happened(error: Busy | Unknown) -> ServiceError:
    return _unanswered(error, "Nothing happened; repeat.")


def _unanswered(error: Busy | Unknown, advice: str) -> ServiceError:
    if isinstance(error, Busy) and error.is_throttle:
        return Throttled("store_throttled", f"The store is asked too much at once. {advice}", retry_after_seconds=1)
    return Unavailable("store_unavailable", f"The store does not answer. {advice}", retry_after_seconds=1)


def clock_fault(skew: timedelta | None) -> Unavailable:
    """Say that this machine's clock would spoil what it writes."""
    by = f"{skew.total_seconds():+.0f} s off" if skew is not None else "far from"
    return Unavailable("clock_skew", f"This machine's clock is {by} the store's. Nothing happened; set it.")


def put_new(
    database: Database,
    table: str,
    item: AttributeMap,
    *,
    before_attempt: Callable[[], None] | None = None,
) -> AttributeMap | None:
    """
    Put *item* where its key is free; nothing may ever remove it while somebody could still repeat this.

    Returns None when it was put, and otherwise the item that stands there: the caller compares the
    author it carries with its own, since an earlier attempt may have been the one that wrote it.
    """
    try:
        database.write("PutItem", put_action(table, item), is_final=_shows_item, before_attempt=before_attempt)
    except Refused as refusal:
        if refusal.item is None:
            raise  # the store breaks its promise to say what stands there
        return refusal.item
    return None


def transact_once(
    database: Database,
    actions: Sequence[Mapping[str, Any]],
    *,
    is_final: Callable[[Cancelled], bool],
    before_attempt: Callable[[], None] | None = None,
) -> None:
    """
    Carry out *actions* together; at least one of them must put a row that knows this operation.

    *is_final* says whether a cancelled transaction can never happen any more; see `Database.write`. The request
    token is the digest of what is asked: within ten minutes it keeps DynamoDB from working twice. It is not what makes
    the operation happen once: the row is.

    Raises:
        Cancelled: nothing happened now; the reasons may show that it happened before.
    """
    request = {"TransactItems": list(actions), "ClientRequestToken": derived(repr(actions))}

    def is_told(error: Refused | Cancelled) -> bool:
        return isinstance(error, Cancelled) and is_final(error)

    database.write("TransactWriteItems", request, is_final=is_told, before_attempt=before_attempt)


def carry_out(database: Database, actions: Sequence[Mapping[str, Any]]) -> bool:
    """
    Carry out guarded *actions* together; False if one of their conditions does not hold (any more).

    What stands in the way of such actions once does so for ever: positions, sizes and turns only rise. One alone needs
    no transaction, which would cost twice as much.
    """
    try:
        if len(actions) == 1:
            ((kind, request),) = actions[0].items()
            database.write(f"{kind}Item", request, is_final=lambda _refusal: True)
        else:
            transact_once(database, actions, is_final=lambda _cancelled: True)
    except Refused:
        return False
    except Cancelled as cancelled:
        if any(reason.code == "ConditionalCheckFailed" for reason in cancelled.reasons):
            return False
        raise
    return True


def update_guarded(
    database: Database, change: Change, *, table: str, is_applied: Callable[[Row], bool]
) -> tuple[bool, Row | None]:
    """
    Change one row if its conditions hold. They must not hold any more once it has been changed.

    Returns whether the change stands, and the row as it is now. *is_applied* recognises the change in a row
    on which the conditions fail: it may be the work of an earlier attempt.

    Raises:
        Uncertain: it was refused, but an attempt without an answer may still arrive when it is allowed.
    """
    request = update_action(table, change) | {
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }

    def is_told(error: Refused | Cancelled) -> bool:
        return isinstance(error, Refused) and error.item is not None and is_applied(from_item(error.item))

    try:
        answer = database.write("UpdateItem", request, is_final=is_told)
    except Refused as refusal:
        row = from_item(refusal.item) if refusal.item is not None else None
        return row is not None and is_applied(row), row
    return True, from_item(answer["Attributes"])


def _shows_item(error: Refused | Cancelled) -> bool:
    return isinstance(error, Refused) and error.item is not None


def put_action(table: str, item: AttributeMap) -> dict[str, Any]:
    """Put *item* where its key is free; every table of Holdfast calls its partition key `pk`."""
    return {
        "TableName": table,
        "Item": item,
        "ConditionExpression": "attribute_not_exists(pk)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def update_action(table: str, change: Change | Update) -> dict[str, Any]:
    expression = _Expression()
    condition = expression.conditions(change.when)
    clauses = []
    if change.set:
        clauses.append(
            "SET " + ", ".join(f"{expression.name(k)} = {expression.value(v)}" for k, v in change.set.items())
        )
    if change.add:
        clauses.append("ADD " + ", ".join(f"{expression.name(k)} {expression.value(v)}" for k, v in change.add.items()))
    return {
        "TableName": table,
        "Key": to_item(change.key),
        "UpdateExpression": " ".join(clauses),
        "ConditionExpression": condition,
        **expression.placeholders(),
    }


def delete_action(table: str, key: Row, when: Sequence[Condition]) -> dict[str, Any]:
    """Delete the row at *key* if every condition in *when* holds on it."""
    expression = _Expression()
    return {
        "TableName": table,
        "Key": to_item(key),
        "ConditionExpression": expression.conditions(when),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        **expression.placeholders(),
    }


def companion_action(companion: Companion, table: str) -> dict[str, Any]:
    """Write a companion as one action of a transaction."""
    match companion:
        case Put():
            return {"Put": put_action(table, to_item({**companion.key, **companion.row}))}
        case Update():
            return {"Update": update_action(table, companion) | {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}}
        case Check():
            expression = _Expression()
            return {
                "ConditionCheck": {
                    "TableName": table,
                    "Key": to_item(companion.key),
                    "ConditionExpression": expression.conditions(companion.when),
                    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                    **expression.placeholders(),
                }
            }


class _Expression:
    """Names and values of one expression, each behind a placeholder, so that no attribute name is a reserved word."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, dict[str, Any]] = {}

    def name(self, attribute: str) -> str:
        return self._names.setdefault(attribute, f"#{len(self._names)}")

    def value(self, value: Any) -> str:
        placeholder = f":{len(self._values)}"
        self._values[placeholder] = to_attribute(value)
        return placeholder

    def conditions(self, when: Sequence[Condition]) -> str:
        if not when:
            raise ValueError("a guarded write names at least one condition")
        return " AND ".join(self._condition(condition) for condition in when)

    def placeholders(self) -> dict[str, Any]:
        names = {placeholder: attribute for attribute, placeholder in self._names.items()}
        return {"ExpressionAttributeNames": names} | (
            {"ExpressionAttributeValues": self._values} if self._values else {}
        )

    def _condition(self, condition: Condition) -> str:
        match condition:
            case Is(attribute, value):
                return f"{self.name(attribute)} = {self.value(value)}"
            case Missing(attribute):
                return f"attribute_not_exists({self.name(attribute)})"
            case AtLeast(attribute, value):
                return f"{self.name(attribute)} >= {self.value(value)}"
