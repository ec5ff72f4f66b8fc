"""
Functions invoked at a rate, in place of the engine's own AWS::Events::Rule.

A minute is long on a laptop, so a rule's time passes SPEEDUP times as fast here. Each schedule has a thread of its own
and waits for its function's answer before it waits for the next tick, so a slow function holds up no other and is never
invoked beside itself; what fails is logged. Nothing may depend on a tick: on AWS, too, one may come late or twice.
"""

import json
import logging
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast import clock
from stacks.local.clients import REFUSALS
from stacks.local.engine import REGION
from stacks.local.profile import Schedule

SPEEDUP: Final = 12
"""A minute of the template is 5 s here, five minutes are 25."""
STOP_SECONDS_MAX: Final = 5.0
"""How long `stop` waits for functions that are running; they end by themselves."""
FAILURES_BETWEEN_WORDS: Final = 12
"""A function that fails again and again is told of at the first and then at every so many-th failure."""
PAYLOAD_CHARACTERS_SHOWN: Final = 500

ClientFactory = Callable[[str], Any]
"""Makes the boto3 client of a service, with time-outs."""

_log = logging.getLogger(__name__)


@dataclass
class Ticker:
    """Invokes functions at their rates, until stopped."""

    client: ClientFactory
    speedup: float = SPEEDUP
    _hands: list["_Hand"] = field(default_factory=list)
    _turns: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    """One at a time for each function, whichever schedule invokes it: it may run for longer than `stop` waits."""

    def tick(self, schedules: Sequence[Schedule]) -> None:
        """Follow these schedules and no others from now on; each ticks first when its time has passed once."""
        self.stop()
        self._hands = [
            _Hand(self.client, schedule, schedule.every_seconds / self.speedup, self._turns[schedule.function_name])
            for schedule in schedules
        ]
        for hand in self._hands:
            hand.start()

    def stop(self) -> None:
        """Invoke nothing more. Waits, within its bound, for functions that are running."""
        deadline = time.monotonic() + STOP_SECONDS_MAX
        for hand in self._hands:
            hand.stopping.set()
        for hand in self._hands:
            hand.join(max(0.0, deadline - time.monotonic()))
        self._hands = []

    def is_alive(self) -> bool:
        """Tell whether every schedule is being followed; one that is not has met a bug (see the log)."""
        return all(hand.is_alive() for hand in self._hands)


class _Hand(threading.Thread):
    """One schedule."""

    def __init__(self, client: ClientFactory, schedule: Schedule, seconds: float, turn: threading.Lock) -> None:
        super().__init__(name=f"schedule {schedule.rule}", daemon=True)
        self.stopping = threading.Event()
        self._client = client
        self._schedule = schedule
        self._seconds = seconds
        self._turn = turn
        self._failures = 0

    def run(self) -> None:
        while not self.stopping.wait(self._seconds):
            with self._turn:
                if not self.stopping.is_set():
                    self._note(self._invoke())

    def _invoke(self) -> str | None:
        """Invoke the function; say what went wrong, if something did."""
        payload = self._schedule.payload or json.dumps(_event(self._schedule.rule))
        try:
            answer = self._client("lambda").invoke(FunctionName=self._schedule.function_name, Payload=payload.encode())
            told = answer["Payload"].read().decode(errors="replace")
        except REFUSALS as error:
            # The engine is starting, stopping or redeploying: the next tick comes.
            return f"cannot be invoked: {error}"
        return f"failed: {told[:PAYLOAD_CHARACTERS_SHOWN]}" if "FunctionError" in answer else None

    def _note(self, problem: str | None) -> None:
        if problem is None:
            self._failures = 0
            return
        if self._failures % FAILURES_BETWEEN_WORDS == 0:
            _log.warning(
                "%s, ticked by %s, %s (failures in a row before: %d)",
                *(self._schedule.function_name, self._schedule.rule, problem, self._failures),
            )
        self._failures += 1


def _event(rule: str) -> dict[str, Any]:
    """Write what EventBridge hands to a scheduled function."""
    account = "0" * 12
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": account,
        "time": clock.to_text(clock.SystemClock().now()),
        "region": REGION,
        "resources": [f"arn:aws:events:{REGION}:{account}:rule/{rule}"],
        "detail": {},
    }
