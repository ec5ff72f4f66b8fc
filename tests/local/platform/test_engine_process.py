"""The shortcuts of the engine's process change no answer."""

import json
import subprocess

from stacks.local.engine import PROCESS
from stacks.local.environment import ensure_engine
from tests.local.conftest import LocalStack, Printed

ANSWERS = """
import json, runpy, sys
from ministack.services import dynamodb

ITEMS = [
    {"pk": {"S": pk}, "sk": sk}
    for pk in ("a", "b")
    for sk in ({"N": "7"}, {"N": "10"}, {"N": "-1"}, {"S": "7"}, {"S": "a"}, {"B": "AQ=="}, {"NULL": True})
] + [{"pk": {"S": "a"}}, {"sk": {"N": "7"}}, {}]
BOUNDS = [
    ({"N": "5"}, {"N": "9"}), ({"N": "9"}, {"N": "5"}), ({"S": "6"}, {"S": "b"}), ({"B": "AQ=="}, {"B": "/w=="}),
    ({"N": "7"}, {"S": "7"}), ({"N": "x"}, {"N": "9"}),
]
EXPRESSIONS = (
    "pk = :a", "pk = :a AND sk BETWEEN :low AND :high", "pk = :a AND sk > :low", "pk = :a AND sk >= :low",
    "pk = :a AND sk < :high", "pk = :a AND sk <= :high", "pk = :a AND sk = :low", "#pk = :a", "pk == :a",
    "((pk = :a))", "pk = :a AND", "status = :a", "size(pk) < :low", "pk = :a AND begins_with(sk, :low)", "", "pk",
)

def answers():
    for low, high in BOUNDS:
        for expression in EXPRESSIONS:
            for slot in ("KeyConditionExpression", "ConditionExpression"):
                values, names = {":a": {"S": "a"}, ":low": low, ":high": high}, {"#pk": "pk"}
                for item in ITEMS:
                    try:
                        yield dynamodb._evaluate_condition(expression, item, values, names, slot=slot)
                    except ValueError as error:
                        yield str(error)

before = list(answers())
runpy.run_path(sys.argv[1])["hurry"](dynamodb)
after = list(answers())
print(json.dumps({"before": before, "after": after, "read": dynamodb._tokenize.cache_info().misses}))
"""
EXPRESSIONS = 16


def test_no_shortcut_changes_an_answer(stack: LocalStack):
    python = ensure_engine(stack.home / "engine", Printed())
    done = subprocess.run(
        [python, "-c", ANSWERS, PROCESS], capture_output=True, text=True, check=True, timeout=60, cwd=stack.home
    )

    told = json.loads(done.stdout)
    assert told["before"] == told["after"]
    assert {True, False} < set(told["before"])
    assert any("Syntax error" in str(answer) for answer in told["before"])
    assert 0 < told["read"] <= EXPRESSIONS
