"""Run one bench and print its numbers as JSON, with what they were measured on."""

import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHES = ("cold_start", "audit_thin_path")


def measured_on() -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() or None,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in BENCHES:
        sys.stderr.write(f"usage: python -m tests.bench {{{','.join(BENCHES)}}}\n")
        return 2
    bench = importlib.import_module(f"tests.bench.{sys.argv[1]}")
    method = (bench.__doc__ or "").strip()
    result = {"bench": sys.argv[1], "method": method, "measured_on": measured_on(), "results": bench.run()}
    text = json.dumps(result, indent=2)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / f"{sys.argv[1]}.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
