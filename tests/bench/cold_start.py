"""CPU time (user + system) of a fresh interpreter that imports a function's app; median of 9, less an empty one's."""

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from stacks.bundle import ENTRIES

REPEATS = 9
ROOT = Path(__file__).parents[2]


def cpu_milliseconds(code: str) -> float:
    path = os.pathsep.join(str(ROOT / part) for part in (".", "layers/holdfast/python"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1_000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def median(code: str) -> float:
    return statistics.median(cpu_milliseconds(code) for _ in range(REPEATS))


def run() -> dict[str, Any]:
    empty = median("pass")
    return {
        f"functions.{service.name}.app_cpu_ms": round(median(f"import functions.{service.name}.app") - empty, 1)
        for service in sorted((ROOT / "functions").iterdir())
        if any((service / entry).exists() for entry in ENTRIES)
    }
