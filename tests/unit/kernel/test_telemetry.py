import json
import re
import subprocess
import sys

import pytest

from holdfast import telemetry
from holdfast.http import Api
from holdfast.telemetry import continue_trace

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "is_sampled"),
    [
        (f"00-{TRACE_ID}-{SPAN_ID}-01", True),
        (f" 00-{TRACE_ID}-{SPAN_ID}-00\t", False),
        (f"00-{TRACE_ID}-{SPAN_ID}-ff", True),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what-the-future-will-be-like", True),
    ],
)
def test_a_valid_trace_is_continued_by_a_span_of_our_own(header: str, is_sampled: bool):
    trace = continue_trace(header)

    assert (trace.trace_id, trace.parent_id, trace.is_sampled) == (TRACE_ID, SPAN_ID, is_sampled)
    assert trace.span_id != SPAN_ID
    assert trace.traceparent == f"00-{TRACE_ID}-{trace.span_id}-{'01' if is_sampled else '00'}"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "junk",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"cc-{TRACE_ID}-{SPAN_ID}-01.more",
    ],
)
def test_an_invalid_trace_is_ignored_and_a_new_one_begun(header: str | None):
    trace = continue_trace(header)

    assert trace.parent_id is None
    assert trace.trace_id != TRACE_ID
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", trace.traceparent)
    assert trace.trace_id != continue_trace(header).trace_id


def test_a_line_goes_to_where_standard_output_is_now(capsys: pytest.CaptureFixture[str]):
    telemetry.logger().info("sealed", segments=3)

    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["message"], line["segments"]) == ("INFO", "sealed", 3)


def test_what_was_measured_is_written_once_with_the_invocation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Holdfast")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "shop")
    telemetry.metrics.cache_clear()
    app = Api("shop", title="Shop", version="1")

    @app.get("/v1/measured", scope=None)
    def get_measured() -> None:
        telemetry.metrics().add_metric("Lag", unit="Seconds", value=7)

    @app.get("/v1/unmeasured", scope=None)
    def get_unmeasured() -> None: ...

    for path in ("/v1/measured", "/v1/unmeasured"):
        app({"requestContext": {"resourcePath": path, "httpMethod": "GET"}}, None)

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [measured] = [line for line in lines if "_aws" in line]
    assert measured["Lag"] == [7.0]
    assert measured["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Holdfast"
    assert sum("answered" in line.values() for line in lines) == 2


def test_importing_the_door_imports_nothing_heavy():
    heavy = ["boto3", "botocore", "cryptography", "jwt", "aws_lambda_powertools", "asyncio", "tenacity"]
    program = f"import sys, holdfast.http; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[]"
