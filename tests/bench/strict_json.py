"""
CPU time of reading the largest body as I-JSON, for the elements that cost most; median of 5, beside `json.loads`.

A body is 4 MB of arrays of 9,000 elements each: what one request can buy of a function's time.
"""

import json
import statistics
from collections.abc import Callable
from typing import Any

from holdfast.http.routes import BODY_BYTES_MAX
from holdfast.strict_json import parse
from tests.bench.audit.figures import cpu_timed, rounded

REPEATS = 5
ARRAY_ELEMENTS = 9_000
ELEMENTS = (b"1", b'""', b"[]", b"{}", b'{"a":1}', b'"\\ud83d\\ude00"', b"1.0e100")


def run() -> dict[str, Any]:
    return {element.decode(): _measured(_largest(element)) for element in ELEMENTS}


def _largest(element: bytes) -> bytes:
    row = b"[" + b",".join([element] * ARRAY_ELEMENTS) + b"]"
    return b"[" + b",".join([row] * (BODY_BYTES_MAX // (len(row) + 1))) + b"]"


def _measured(body: bytes) -> dict[str, float]:
    ours, peer = _median(lambda: parse(body)), _median(lambda: json.loads(body))
    return {
        "cpu_seconds": rounded(ours),
        "json_loads_cpu_seconds": rounded(peer),
        "times_the_peer": rounded(ours / peer),
    }


def _median(call: Callable[[], Any]) -> float:
    return statistics.median(cpu_timed(call) for _ in range(REPEATS))
