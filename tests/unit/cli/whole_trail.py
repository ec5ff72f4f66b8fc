"""The whole audit trail behind the SDK, in one process: real routes, and workers that have always just worked."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from functions.audit import adapters
from functions.audit.app import app
from holdfast_client.audit import Audit, AuditCalls
from holdfast_client.conversation import Answer, Call
from holdfast_client.errors import read_failure
from tests.audit_lab import AuditLab

_PARAMETER: Final = re.compile(r"\\\{(\w+)\\\}")


def _routes() -> list[tuple[re.Pattern[str], str]]:
    # What is written out wins over a parameter, as in API Gateway.
    templates = sorted(app.openapi()["paths"], key=lambda template: [part[:1] == "{" for part in template.split("/")])
    return [(re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", re.escape(each))), each) for each in templates]


class WholeTrail:
    """Answers the SDK's calls with the real app."""

    def __init__(self, lab: AuditLab) -> None:
        self.lab = lab
        self.does_work = True
        self.before_answer: Callable[[str, str], None] = lambda _method, _path: None
        self.after_answer: Callable[[str, Any], Any] = lambda _path, body: body
        self._routes = _routes()

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Stand where `Holdfast` stands."""
        transport: Any = self
        calls = AuditCalls("http://holdfast", {})
        yield type("Connected", (), {"audit": Audit(calls, transport)})()

    def run(self, call: Call[Any]) -> Any:
        url = urlsplit(call.request.url)
        match, template = next(
            (match, template) for pattern, template in self._routes if (match := pattern.fullmatch(url.path))
        )
        self.before_answer(call.request.method, url.path)
        status, body, headers = self.lab.door.call(
            call.request.method,
            template,
            raw=call.request.content or None,
            path=f"{url.path}?{url.query.replace('+', '%20')}",
            parameters=match.groupdict(),
            headers=dict(call.request.headers),
        )
        if self.does_work:
            self.work(call.request.method)
        # As the service writes it: the lines of an export have one form.
        encoded = msgspec.json.encode(self.after_answer(url.path, body))
        if status >= 400:
            raise read_failure(status, "request-7", encoded).error
        return call.read(Answer(status, {name.lower(): value for name, value in headers.items()}, encoded))

    def work(self, method: str) -> None:
        """Let the workers do what a write gives them to do."""
        if method == "GET":
            return
        self.lab.lab.clock.advance(timedelta(seconds=1))
        self.lab.lab.repair().walk()
        self.lab.settle()
        adapters.anchors().sign()
        self.lab.work()


def a_moment(whole: WholeTrail) -> str:
    """Tell the time, and let it go on."""
    now = whole.lab.lab.clock.now().isoformat()
    whole.lab.lab.clock.advance(timedelta(seconds=1))
    return now
