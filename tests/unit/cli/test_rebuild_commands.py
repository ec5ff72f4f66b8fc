"""What operators ask of rebuilds from the command line."""

import contextlib
import itertools
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from functions.audit import adapters
from holdfast.log.values import PARTITIONS, partition_of
from holdfast.projections import Generation
from holdfast_cli import audit_rebuilds
from holdfast_client import Unavailable, Uncertain
from tests.audit_lab import event
from tests.unit.cli.printed import error_of
from tests.unit.cli.whole_trail import a_moment


class Screen:
    """A terminal of which it is kept what was written to it."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.text = ""


@contextmanager
def terminal() -> Iterator[Screen]:
    """Open a terminal, and read along until it is closed: it holds little that nobody reads."""
    master, slave = os.openpty()
    screen = Screen(os.fdopen(slave, "w"))
    assert screen.file.isatty()

    def read() -> None:
        with contextlib.suppress(OSError):  # which is how the other end's closing shows
            while said := os.read(master, 1 << 16):
                screen.text += said.decode()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield screen
    finally:
        screen.file.close()
        reader.join()
        os.close(master)


def test_a_rebuild_that_comes_out_equal_is_swapped_in_and_both_digests_are_told(told):
    code, out, err = told("audit", "rebuild", "events", "--reason", "practice")

    assert (code, out) == (0, "")
    rebuilt, live = re.findall(r"^  (?:rebuilt|live) .* ([0-9a-f]+)$", err, re.MULTILINE)
    assert (len(rebuilt), rebuilt) == (64, live)
    assert "generation 2 is live now" in err


def test_a_rebuild_without_a_reason_says_where_it_was_asked_for(told):
    code, out, _ = told("audit", "rebuild", "activity", "--json")

    rebuild = json.loads(out)
    assert (code, rebuild["state"], rebuild["reason"]) == (0, "flipped", "asked for at the command line")


def test_a_rebuild_of_four_partitions_at_once_shows_on_a_terminal_how_far_it_is(told, whole, monkeypatch):
    for number in range(20):
        whole.lab.append(f"more/{number}", *(event(each) for each in range(5)))
    whole.lab.settle()
    positions = [whole.lab.lab.log().head(partition).position for partition in range(PARTITIONS)]
    whole.does_work = False

    def one_worker_after_the_other(method: str, path: str) -> None:
        if method == "GET" and "/rebuilds/" in path and (steps := whole.lab.steps):
            step = steps.pop(0)
            if adapters.rebuilds().step(*step):
                steps.append(step)

    whole.before_answer = one_worker_after_the_other
    monkeypatch.setenv("TERM", "xterm")
    # Slower than the bar is drawn.
    monkeypatch.setattr(audit_rebuilds, "POLL_SECONDS", 0.15)

    with terminal() as screen:
        monkeypatch.setattr("sys.stderr", screen.file)
        code, out, _ = told("audit", "rebuild", "streams", "--reason", "practice", "--json")

    assert (code, json.loads(out)["state"]) == (0, "flipped")
    shown = [int(number) for number in re.findall(r"(\d+) events", screen.text)]
    assert shown == sorted(shown)
    assert len({*shown} & {*itertools.accumulate(positions)}) >= 2
    assert "remaining" in screen.text


def test_a_rebuild_may_wait_for_a_person_to_swap_it_in_and_back(told):
    code, out, _ = told("audit", "rebuild", "streams", "--reason", "look first", "--no-flip", "--json")
    rebuild = json.loads(out)

    assert (code, rebuild["state"], rebuild["compared"]["equal"]) == (0, "ready", True)
    assert rebuild["compared"]["rows"] == 2
    for change, state in (("flip", "flipped"), ("rollback", "rolled_back")):
        code, out, _ = told("audit", "rebuild-change", rebuild["rebuild_id"], change, "--json")
        assert (code, json.loads(out)["state"]) == (0, state)
    assert told("audit", "rebuild-change", rebuild["rebuild_id"], "abandon")[0] == 4


def test_a_change_of_unknown_outcome_is_asked_for_again_by_the_same_command(told, whole):
    rebuild = json.loads(told("audit", "rebuild", "streams", "--reason", "look first", "--no-flip", "--json")[1])
    lost: list[str] = []

    def lose(path: str, body: Any) -> Any:
        if path.endswith("/flip") and not lost:
            lost.append(path)
            raise Uncertain("key", Unavailable("no_answer", "No answer."))
        return body

    whole.after_answer = lose
    code, _, err = told("audit", "rebuild-change", rebuild["rebuild_id"], "flip", "--json")
    error = error_of(err)

    assert (code, error["code"]) == (4, "outcome_unknown")
    assert "running the same command again" in error["detail"]
    assert "idempotency key" not in error["detail"]
    code, out, _ = told(*error["next_command"].split()[1:])
    assert (code, json.loads(out)["state"]) == (0, "flipped")


def test_a_past_view_is_made_and_never_live(told, whole):
    early = a_moment(whole)
    told("audit", "append", "orders/9", "--type", "t", "--data", "1")

    code, out, _ = told("audit", "rebuild", "streams", "--reason", "then", "--as-of", early, "--json")

    rebuild = json.loads(out)
    assert (code, rebuild["state"], rebuild["rows"]) == (0, "ready", 2)
    assert told("audit", "rebuild-change", rebuild["rebuild_id"], "flip")[0] == 4


def test_a_rebuild_that_differs_needs_somebody_to_look_and_ends_with_1(told, whole):

    whole.lab.lab.corrupt(Generation("events", 1, whole.lab.lab.tenant), partition_of("orders/1"))

    code, out, err = told("audit", "rebuild", "events", "--reason", "suspicion")

    assert (code, out) == (1, "")
    assert "nothing was swapped in" in err
    again, out, _ = told("audit", "rebuild", "events", "--reason", "suspicion", "--json")
    assert (again, json.loads(out)["state"], json.loads(out)["compared"]["equal"]) == (1, "needs_review", False)


def test_a_rebuild_that_stands_still_is_not_followed_for_ever(told, whole, monkeypatch):
    whole.does_work = False
    monkeypatch.setattr(audit_rebuilds, "STILL_SECONDS_MAX", 0.05)

    code, _, err = told("audit", "rebuild", "events", "--reason", "stuck", "--json")

    assert (code, error_of(err)["code"]) == (1, "rebuild_stands_still")
    whole.does_work = True
    assert told("audit", "rebuild-change", error_of(err)["rebuild_id"], "abandon")[0] == 0


def test_a_rebuild_that_is_left_is_followed_again_by_the_same_key(told, whole):
    def interrupt(method: str, path: str) -> None:
        if method == "GET" and "/rebuilds/" in path:
            whole.before_answer = lambda _method, _path: None
            raise KeyboardInterrupt

    whole.before_answer = interrupt
    code, _, err = told("audit", "rebuild", "activity", "--reason", "slow", "--json")
    assert code == 130

    again = error_of(err)["next_command"].split()[1:]
    code, out, _ = told(*again)

    assert (code, json.loads(out)["rebuild_id"]) == (0, error_of(err)["rebuild_id"])
