"""The service's README lists what is public; these keep the lists true."""

import re
from pathlib import Path

import typer.main

from functions.audit.app import app
from holdfast_cli.main import app as command_line

ROOT = Path(__file__).parents[3]
README = (ROOT / "functions/audit/README.md").read_text()
BEFORE_ANY_ROUTE = {"not_found", "method_not_allowed"}
"""What the door answers when no route is meant; no route can document it."""
RAISED = re.compile(r'\b(?:Invalid|Denied|NotFound|Conflict|Stale|Throttled|Unavailable|Uncertain)\(\s*"(\w+)"')
OF_OTHER_CALLERS = {
    "no_appends",
    "duplicate_stream",
    "too_many_actions",
    "transaction_too_large",  # of append_many, which no route of this service reaches
    "companion_refused",
    "invalid_companion",  # this service has none
    "foreign_boundary",  # no route takes a boundary
    "invalid_tenant",  # of a token, which says token_invalid
    "invalid_cursor",  # no route of this service pages by cursor
    "idempotency_key_required",  # no route of this service demands one
}


def codes_in_readme() -> set[str]:
    rows = re.findall(r"^\| \d{3} \| (.*) \|$", README, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`(\w+)`", row)}


def test_the_routes_are_those_of_the_app():
    listed = set(re.findall(r"^\| `((?:GET|POST|PUT|DELETE) [^`?]+)` \|", README, re.MULTILINE))
    served = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}

    assert listed == served


def test_the_codes_are_those_of_the_api_description():
    described = set(re.findall(r"'enum': \[([^\]]*)\]", str(app.openapi()["paths"])))
    codes = {code for group in described for code in re.findall(r"'(\w+)'", group)} - {"asc", "desc"}

    assert codes_in_readme() == codes | BEFORE_ANY_ROUTE


def test_no_code_is_raised_that_is_not_listed():
    sources = [*(ROOT / "functions/audit").glob("*.py"), *(ROOT / "layers/holdfast/python/holdfast").rglob("*.py")]
    raised = {code for source in sources for code in RAISED.findall(source.read_text())}

    assert raised - OF_OTHER_CALLERS <= codes_in_readme()


def test_the_commands_and_their_options_are_those_of_the_command_line():
    commands = typer.main.get_command(command_line).commands["audit"].commands  # type: ignore[attr-defined]
    rows = dict(re.findall(r"^\| `./holdfast audit (\w+)` \| (.*) \|$", README, re.MULTILINE))

    assert set(rows) == set(commands)
    for name, command in commands.items():
        options = {long for option in command.params for long in option.opts if long.startswith("--")}
        assert set(re.findall(r"--[\w-]+", rows[name])) == options - {"--help"}
