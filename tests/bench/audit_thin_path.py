"""
The audit trail over HTTP on the running local stack, one client, everything on this machine; times in milliseconds are
medians and 95th percentiles over the counts given. A made history of 2,261 commits stands for a real one of that size.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from holdfast_client import Holdfast
from holdfast_client.events import Event

APPENDS = 200
BATCHES = 20
BATCH = 250
STATES = 60
LINES = 2_261
IMPORT_SECONDS_MAX = 120
COMMAND = (sys.executable, "-m", "holdfast_cli", "audit", "import", "--json")


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    ordered = sorted(1_000 * one for one in seconds)
    return {"p50": round(statistics.median(ordered), 1), "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 1)}


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def events(first: int, count: int) -> list[Event]:
    return [Event(type="bench.happened", data={f"k{number % 500}": number}) for number in range(first, first + count)]


def history(path: Path) -> None:
    with path.open("w") as file:
        for number in range(LINES):
            changes = [
                {"op": "modified", "path": f"src/{(number * 3 + n) % 250}.py", "blob": uuid.uuid4().hex}
                for n in range(3)
            ]
            at = f"2026-01-{1 + number // 100:02}T{number // 4 % 24:02}:00:00Z"
            file.write(
                json.dumps({"seq": number, "at": at, "actor": "bench", "commit": f"{number:040x}", "changes": changes})
                + "\n"
            )


def run() -> dict[str, Any]:
    stream = f"bench/{uuid.uuid4().hex[:8]}"
    with Holdfast.local() as holdfast, tempfile.TemporaryDirectory() as folder:
        audit = holdfast.audit
        single = [timed(partial(audit.append, f"{stream}-one", events(n, 1), n)) for n in range(APPENDS)]
        batches = [
            timed(partial(audit.append, f"{stream}-many", events(n * BATCH, BATCH), n * BATCH)) for n in range(BATCHES)
        ]
        path = Path(folder) / "history.jsonl"
        history(path)
        command = [*COMMAND, str(path), "--stream", f"{stream}-import"]
        imported = timed(partial(subprocess.run, command, check=True, capture_output=True, timeout=IMPORT_SECONDS_MAX))
        step = LINES // STATES
        by_version = [timed(partial(audit.state, f"{stream}-import", version=v)) for v in range(1, LINES, step)]
        by_time = [
            timed(partial(audit.state, f"{stream}-import", at=f"2026-01-{d:02}T12:00:00Z")) for d in range(1, 24)
        ]
    return {
        "append_one_by_one_ms": percentiles(single),
        "appends_per_second": round(APPENDS / sum(single)),
        f"append_{BATCH}_at_once_ms": percentiles(batches),
        f"events_per_second_in_{BATCH}s": round(BATCHES * BATCH / sum(batches)),
        f"import_of_{LINES}_lines_seconds_with_start_up": round(imported, 2),
        "state_by_version_ms": percentiles(by_version),
        "state_by_time_ms": percentiles(by_time),
    }
