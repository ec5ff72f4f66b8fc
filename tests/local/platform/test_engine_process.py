"""What the engine remembers of expressions changes no answer."""

import json
import subprocess

from stacks.local.engine import PROCESS
from stacks.local.environment import ensure_engine
from tests.local.conftest import LocalStack, Printed

ANSWERS = """
import json, runpy, sys
from ministack.services import dynamodb

ITEM = {"pk": {"S": "a"}, "sk": {"N": "7"}}
VALUES = {":a": {"S": "a"}, ":five": {"N": "5"}, ":nine": {"N": "9"}}
EXPRESSIONS = (
    "pk = :a", "pk = :a AND sk BETWEEN :five AND :nine", "pk = :a AND sk > :nine", "#pk = :a", "pk == :a",
    "((pk = :a))", "pk = :a AND", "status = :a", "sk BETWEEN :nine AND :five", "size(pk) < :five", "",
    "begins_with(pk, :a)", "pk",
)

def answers():
    for expression in EXPRESSIONS * 2:
        for slot in ("KeyConditionExpression", "ConditionExpression"):
            try:
                yield dynamodb._evaluate_condition(expression, ITEM, VALUES, {"#pk": "pk"}, slot=slot)
            except ValueError as error:
                yield str(error)

before = list(answers())
runpy.run_path(sys.argv[1])["remember"]()
read = dynamodb._tokenize.cache_info
print(json.dumps({"before": before, "after": list(answers()), "read": read().misses, "asked": read().hits}))
"""


def test_what_is_remembered_of_an_expression_changes_no_answer(stack: LocalStack):
    python = ensure_engine(stack.home / "engine", Printed())
    done = subprocess.run([python, "-c", ANSWERS, PROCESS], capture_output=True, text=True, check=True, timeout=60)

    told = json.loads(done.stdout)
    assert told["before"] == told["after"]
    assert {True, False} < set(told["before"])
    assert 0 < told["read"] < told["asked"]
