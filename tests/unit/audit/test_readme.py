"""The service's README lists what is public; these keep the lists true."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import typer.main

from functions.audit.app import app
from holdfast_cli.main import app as command_line
from stacks import fragments
from tests.bench.audit import table

ROOT = Path(__file__).parents[3]
README = (ROOT / "functions/audit/README.md").read_text()
BEFORE_ANY_ROUTE = {"not_found", "method_not_allowed"}
"""What the door answers when no route is meant; no route can document it."""
RAISED = re.compile(r'\b(?:Invalid|Denied|NotFound|Conflict|Stale|Throttled|Unavailable|Uncertain)\(\s*"(\w+)"')
OF_OTHER_CALLERS = {
    "too_many_actions",  # of companions; appends alone are too_many_appends before
    "companion_refused",
    "invalid_companion",  # this service has none
    "foreign_boundary",  # no route takes a boundary
    "invalid_tenant",  # of a token, which says token_invalid
    "bad_signature",  # of the function that signs
    "target_unavailable",  # of the function that sends to subscribers
    "too_young",  # of the function that archives
    "ticket_invalid",  # refuses a WebSocket's handshake, with 403
    "invalid_message",  # told over the WebSocket, see "The live tail"
    "not_subscribed",
}
IMPORTED = """
import sys
import functions.audit.app
for name, module in sys.modules.items():
    if name.startswith(("functions.audit", "holdfast.")):
        print(module.__file__)
"""


MEASURED = ROOT / "tests/bench/results/audit.json"


def codes_in_readme() -> set[str]:
    rows = re.findall(r"^\| \d{3} \| (.*) \|$", README, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`(\w+)`", row)}


def test_the_routes_and_the_scopes_that_open_them_are_those_of_the_app():
    rows = re.findall(r"^\| `((?:GET|POST|PUT|DELETE) [^`?]+)` \| ([^|]+) \|", README, re.MULTILINE)
    served = {
        f"{method.upper()} {path}": [scope for way in described["security"] for scope in way["token"]]
        for path, methods in app.openapi()["paths"].items()
        for method, described in methods.items()
    }

    assert {route: re.findall(r"`([\w:-]+)`", scopes) for route, scopes in rows} == served


def test_the_codes_are_those_of_the_api_description():
    described = set(re.findall(r"'enum': \[([^\]]*)\]", str(app.openapi()["paths"])))
    codes = {code for group in described for code in re.findall(r"'(\w+)'", group)} - {"asc", "desc", "day", "data"}

    assert codes_in_readme() == codes | BEFORE_ANY_ROUTE


def test_no_code_is_raised_that_is_not_listed():
    paths = os.pathsep.join(str(ROOT / path) for path in (".", "layers/holdfast/python"))
    command = [sys.executable, "-c", IMPORTED]
    imported = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=True
    )
    raised = {code for source in imported.stdout.splitlines() for code in RAISED.findall(Path(source).read_text())}

    assert {"no_merge_patch", "invalid_range", "view_behind"} <= raised

    assert raised - OF_OTHER_CALLERS <= codes_in_readme()


def test_the_commands_and_their_options_are_those_of_the_command_line():
    commands = typer.main.get_command(command_line).commands["audit"].commands  # type: ignore[attr-defined]
    rows = dict(re.findall(r"^\| `./holdfast audit ([\w-]+)` \| (.*) \|$", README, re.MULTILINE))

    assert set(rows) == set(commands)
    for name, command in commands.items():
        options = {long for option in command.params for long in option.opts if long.startswith("--")}
        assert set(re.findall(r"--[\w-]+", rows[name])) == options - {"--help"}


def test_the_metrics_and_the_published_events_are_those_of_the_code_and_each_metric_has_an_alarm():
    sources = "".join(path.read_text() for path in (ROOT / "functions/audit").rglob("*.py"))
    counted = set(re.findall(r'\bcount\("(\w+)"', sources)) | set(re.findall(r'add_metric\("(\w+)"', sources))
    listed = README.partition("(namespace `Holdfast`):")[2].partition("; with API")[0]
    published = {path.stem for path in (ROOT / "events/audit").glob("*.json") if "." in path.stem}

    alarms = [
        resource["Properties"]
        for name in ("audit", "streams")
        for resource in fragments.read(name)["Resources"].values()
        if resource["Type"] == "AWS::CloudWatch::Alarm" and resource["Properties"].get("Namespace") == "Holdfast"
    ]

    assert set(re.findall(r"`(\w+)`", listed)) == counted == {alarm["MetricName"] for alarm in alarms}
    assert set(re.findall(r"`holdfast\.audit\.([\w.]+)\.v1`", README)) == published


def test_whoever_may_find_no_store_may_find_a_clock_that_is_wrong():
    described = [str(operation) for methods in app.openapi()["paths"].values() for operation in methods.values()]
    asking = [operation for operation in described if "'store_unavailable'" in operation]

    assert len(asking) > 30
    assert all("'clock_skew'" in operation for operation in asking)


def test_the_figures_are_those_of_the_run_that_is_kept():
    result = json.loads(MEASURED.read_text())
    shown = [line for line in README.partition("## Figures")[2].splitlines() if line.startswith("|")]

    rows = list(table.rows(result))

    assert shown[: len(rows)] == rows
    assert f"commit {result['measured_on']['commit']}" in README
