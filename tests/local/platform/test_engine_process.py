"""The shortcuts of the engine's process change no answer."""

import json
import subprocess
from pathlib import Path

from stacks.local.engine import PROCESS
from stacks.local.environment import ensure_engine
from tests.local.conftest import LocalStack, Printed

ANSWERS = Path(__file__).with_name("engine_answers.py")
CONDITIONS = 18


def test_no_shortcut_changes_an_answer(stack: LocalStack):
    python = ensure_engine(stack.home / "engine", Printed())
    done = subprocess.run(
        [python, ANSWERS, PROCESS], capture_output=True, text=True, check=True, timeout=120, cwd=stack.home
    )

    told = json.loads(done.stdout)
    assert told["is_same"]
    assert told["pages_with_rows"] > 300
    assert told["pages_that_go_on"] > 200
    assert told["refused"] > 1000
    assert told["walked"] > 300
    assert told["left_to_stay"] > 1000
    assert 0 < told["read"] <= CONDITIONS
