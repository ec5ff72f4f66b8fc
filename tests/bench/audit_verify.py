"""
The offline verifier on one core, CPU time of this process. Exports of 1,000,000 events in commits of 250 and of 100,000
events in commits of one, 1,000 streams each, read from a gzip file and checked against a pinned key: medians of 5. Then
one bit of one event of the million is altered, with the file's digest mended, and the time until it is named. Memory is
what checking adds to the process, at most.
"""

import base64
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from holdfast_client.export import closed, write_lines
from holdfast_client.verifier import Broken, Proven, read_lines, verify
from tests.exported_log import ExportedLog, pem

REPEATS = 5
STREAMS = 1_000
SHAPES: Mapping[str, tuple[int, int]] = {"in commits of 250": (4_000, 250), "in commits of 1": (100_000, 1)}
"""By name: commits, and events of each."""
SEED = 3


def event(number: int) -> bytes:
    return msgspec.json.encode(
        {
            "actor": "ann",
            "data": {"amount": number, "currency": "EUR", "note": f"position {number} of the order"},
            "id": f"{number:032x}",
            "source": "urn:bench",
            "specversion": "1.0",
            "subject": f"orders/{number % STREAMS}",
            "time": "2026-01-01T12:00:00.000000Z",
            "type": "order.position.added",
        },
        order="sorted",
    )


def made(commits: int, events: int) -> ExportedLog:
    log = ExportedLog()
    for number in range(commits):
        log.append(f"orders/{number % STREAMS}", *[event(number * events + each) for each in range(events)])
    log.anchor()
    return log


def cpu_seconds(path: Path, key: bytes) -> float:
    started = time.process_time()
    result = verify(read_lines(path), key)
    seconds = time.process_time() - started
    if not isinstance(result, Proven):
        raise RuntimeError(result.reason)  # noqa: TRY004 - it is no question of types
    return seconds


def altered(path: Path, noise: random.Random) -> Iterator[bytes]:
    """Flip one bit of one event, and close the lines with the digest that they have then."""
    lines = list(read_lines(path))[:-1]
    at = noise.choice([number for number, line in enumerate(lines) if line.startswith(b'{"type":"commit"')])
    line = msgspec.json.decode(lines[at])
    chosen = noise.randrange(len(line["events"]))
    body = bytearray(base64.b64decode(line["events"][chosen]))
    body[noise.randrange(len(body))] ^= 1 << noise.randrange(8)
    line["events"][chosen] = base64.b64encode(body).decode()
    lines[at] = msgspec.json.encode(line) + b"\n"
    return closed(line.removesuffix(b"\n") for line in lines)


def run(shapes: Mapping[str, tuple[int, int]] = SHAPES, repeats: int = REPEATS) -> dict[str, Any]:
    results: dict[str, Any] = {}
    noise = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl.gz"
        for shape, (commits, events) in shapes.items():
            log = made(commits, events)
            key = pem(log.signer)
            write_lines(path, log.lines())
            del log
            seconds = statistics.median(cpu_seconds(path, key) for _ in range(repeats))
            results[f"events_per_second_{shape.replace(' ', '_')}"] = round(commits * events / seconds)
            results[f"file_megabytes_{shape.replace(' ', '_')}"] = round(path.stat().st_size / 1e6, 1)
            if events > 1:
                results |= of_one_bit(path, key, noise)
                results |= of_memory(path, key)
    return results


def of_one_bit(path: Path, key: bytes, noise: random.Random) -> dict[str, Any]:
    lines = list(altered(path, noise))
    started = time.process_time()
    found = verify(lines, key)
    seconds = time.process_time() - started
    if not isinstance(found, Broken):
        sys.exit("One altered bit was not found.")
    return {"one_altered_bit_found": found.reason, "one_altered_bit_found_after_seconds": round(seconds, 2)}


def of_memory(path: Path, key: bytes) -> dict[str, Any]:
    tracemalloc.start()
    verify(read_lines(path), key)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"memory_megabytes_at_most": round(peak / 1e6, 1)}
