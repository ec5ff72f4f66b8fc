"""
Run one bench and print its numbers as JSON, with what they were measured on.

    python -m tests.bench NAME [--small] [--out FOLDER]

They are kept beside this file, or in FOLDER. With --small a bench that knows it only shows that it works; then nothing
is kept unless a folder is named.
"""

import argparse
import importlib
import inspect
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHES = ("cold_start", "strict_json", "audit_verify", "audit")
RESULTS = Path(__file__).parent / "results"


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
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Numbers with their method.")
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument("--small", action="store_true", help="only see that the bench works")
    parser.add_argument("--out", type=Path, help="where the numbers are kept")
    asked = parser.parse_args()
    bench = importlib.import_module(f"tests.bench.{asked.name}")
    if asked.small and "small" not in inspect.signature(bench.run).parameters:
        parser.error(f"{asked.name} knows no --small")
    results = bench.run(small=True) if asked.small else bench.run()
    method = (bench.__doc__ or "").strip()
    result = {"bench": asked.name, "method": method, "measured_on": measured_on(), "results": results}
    text = json.dumps(result, indent=2)
    folder = asked.out or (None if asked.small else RESULTS)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{asked.name}.json").write_text(text + "\n")
        if hasattr(bench, "picture"):
            (folder / f"{asked.name}.svg").write_text(bench.picture(result))
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
