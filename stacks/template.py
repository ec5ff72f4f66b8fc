"""
What CloudFormation gets: Chalice's template and stacks/<service>.yaml, made one.

Chalice knows the functions and their routes; the yaml file (made whole by `fragments`) knows what they stand on and
what else calls them. The two never speak of the same thing: a name that both use is an error. What is added here is
what every service shares, so that no yaml file has to repeat it:

* a function gets the role that the yaml file names after it, its logs a group with an end, and the role the right to
  write them; alarms tell of its errors and of its throttles;
* its code, its layers, and the settings that the kernel reads;
* the API's own refusals, made before any function runs, are problems (RFC 9457) like all others.
"""

import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from holdfast.http.answers import PROBLEM_TYPE
from stacks import ROOT, BuildFailed
from stacks.bundle import Bundle
from stacks.fragments import API_HANDLER, Resource, Template, joined, role_name, whole

INLINE_BYTES_MAX = 51_200
"""The most that CloudFormation takes in a request (TemplateBody); a larger template travels by S3."""

API = "RestAPI"
"""Chalice's logical id of the API."""

LOG_GROUP = "AWS::Logs::LogGroup"
ALARM = "AWS::CloudWatch::Alarm"

AT_ONCE = {"Period": 60, "EvaluationPeriods": 1}
LASTING = {"Period": 300, "EvaluationPeriods": 3}
"""
When an alarm tells somebody. A function in the background raises also where there is more to do than time, or where a
store does not answer, and is called again: only if that goes on for a quarter of an hour has somebody to look.
"""

LOGS_DAYS = 30
BACKGROUND_SECONDS_MAX = 60
"""A function's time where nobody waits for an answer; that in chalice.json ends before API Gateway gives up (29 s)."""

REQUESTS_PER_SECOND_MAX = 500
REQUESTS_BURST_MAX = 1_000
"""
What one API lets through (API Gateway's own limit is 10,000 per second for a whole account and region): a loop in
one client must not use up the account. It is a parameter of every stack (`RequestsPerSecondMax`).
"""

ACTIONS_WITHOUT_RESOURCE = {
    "xray:PutTelemetryRecords": "X-Ray has no resources to name.",
    "xray:PutTraceSegments": "X-Ray has no resources to name.",
}
"""The only actions that a function's role may have on `*`, each with its reason; a test reads every template."""

MAY_HAVE_HAPPENED = "There is no answer, and it may have happened: repeat with the same Idempotency-Key."

GATEWAY_RESPONSES: dict[str, tuple[int, str, bool, str]] = {
    # An unknown route, as API Gateway sees it: it looks for a signature before it gives up.
    "MISSING_AUTHENTICATION_TOKEN": (404, "not_found", False, "There is no such route; see GET /openapi.json."),
    "RESOURCE_NOT_FOUND": (404, "not_found", False, "There is no such route; see GET /openapi.json."),
    "REQUEST_TOO_LARGE": (413, "body_too_large", False, "The body is larger than 10 MB."),
    "UNSUPPORTED_MEDIA_TYPE": (415, "unsupported_media_type", False, "The content type is not taken here."),
    "THROTTLED": (429, "throttled", True, "Too many requests: wait, then repeat."),
    "QUOTA_EXCEEDED": (429, "throttled", True, "Too many requests: wait, then repeat."),
    "ACCESS_DENIED": (403, "refused", False, "The request was refused before it reached the service."),
    "EXPIRED_TOKEN": (403, "refused", False, "Send `Authorization: Bearer <token>`, not an AWS signature."),
    "INVALID_SIGNATURE": (403, "refused", False, "Send `Authorization: Bearer <token>`, not an AWS signature."),
    "WAF_FILTERED": (403, "refused", False, "The request was refused before it reached the service."),
    "DEFAULT_4XX": (400, "bad_request", False, "The request could not be read."),
    "INTEGRATION_TIMEOUT": (504, "outcome_unknown", True, MAY_HAVE_HAPPENED),
    "INTEGRATION_FAILURE": (504, "outcome_unknown", True, MAY_HAVE_HAPPENED),
    "DEFAULT_5XX": (502, "outcome_unknown", True, MAY_HAVE_HAPPENED),
}
"""API Gateway's own answers (its "gateway response types"): status, code, whether to repeat, and a sentence."""


def text(template: Template) -> str:
    """Write a template as it is sent: as short as JSON can be, and the same whenever it is the same."""
    return json.dumps(template, separators=(",", ":"), sort_keys=True)


def is_large(template: Template) -> bool:
    """Say whether a template is too large for a request."""
    return len(text(template).encode()) > INLINE_BYTES_MAX


def parameters_of(template: Template, values: Mapping[str, str]) -> dict[str, str]:
    """Choose of *values* the parameters that *template* declares: what it does not declare, CloudFormation refuses."""
    declared = template.get("Parameters", {})
    return {name: value for name, value in values.items() if name in declared}


def merge(bundle: Bundle, own: Template, root: Path = ROOT) -> Template:
    """
    Make one template of Chalice's and of stacks/<service>.yaml.

    Raises:
        BuildFailed: both define the same name, a function lacks its role, or a role its function.
    """
    made = json.loads(json.dumps(bundle.template))
    own = whole(own, bundle.service, bundle.functions, root)
    merged = joined(made, own, f"Chalice from functions/{bundle.service}", bundle.service)
    merged.pop("Metadata", None)
    merged["Parameters"] = merged.get("Parameters", {}) | _shared_parameters()
    for logical_id in bundle.functions:
        _complete_function(logical_id, bundle.service, merged["Resources"])
    if API in merged["Resources"]:
        _complete_api(merged["Resources"][API], bundle.service)
    return merged


def _shared_parameters() -> Template:
    return {
        "ArtifactBucket": {"Type": "String"},
        "CodeKey": {"Type": "String"},
        "KernelLayerArn": {"Type": "String"},
        "DependenciesLayerArn": {"Type": "String"},
        "RevocationsTable": {"Type": "String"},
        "AlarmTopic": {"Type": "String"},
        "RequestsPerSecondMax": {"Type": "Number", "Default": REQUESTS_PER_SECOND_MAX},
        "RequestsBurstMax": {"Type": "Number", "Default": REQUESTS_BURST_MAX},
    }


def function_name(service: str, logical_id: str) -> str:
    """Name a function by its service and by what it does: a stable name, which its log group and alarms have too."""
    if logical_id == API_HANDLER:
        return f"holdfast-{service}-api"
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", logical_id)
    return f"holdfast-{service}-{words.lower()}"


def _complete_function(logical_id: str, service: str, resources: Template) -> None:
    name, role = function_name(service, logical_id), role_name(logical_id)
    if role not in resources:
        raise BuildFailed(
            f"stacks/{service}.yaml has no {role}, which the function {logical_id} needs.",
            "Each function has a role of its own with just what it calls.",
        )
    properties = resources[logical_id]["Properties"]
    properties["FunctionName"] = name
    properties["Role"] = {"Fn::GetAtt": [role, "Arn"]}
    properties["CodeUri"] = {"Bucket": {"Ref": "ArtifactBucket"}, "Key": {"Ref": "CodeKey"}}
    properties["Layers"] = [{"Ref": "KernelLayerArn"}, {"Ref": "DependenciesLayerArn"}]
    if logical_id != API_HANDLER:
        properties["Timeout"] = BACKGROUND_SECONDS_MAX
    variables = properties.setdefault("Environment", {}).setdefault("Variables", {})
    variables |= {
        "HOLDFAST_SERVICE": service,
        "HOLDFAST_JWKS_PARAMETER": "/holdfast/auth/jwks",
        "HOLDFAST_CURSOR_KEY_PARAMETER": "/holdfast/auth/cursor-key",
        "HOLDFAST_REVOCATIONS_TABLE": {"Ref": "RevocationsTable"},
        "POWERTOOLS_SERVICE_NAME": service,
        "POWERTOOLS_METRICS_NAMESPACE": "Holdfast",
        "POWERTOOLS_LOG_LEVEL": "INFO",
    }

    for made, resource in _around(role.removesuffix("Role"), name, is_api=logical_id == API_HANDLER).items():
        if made in resources:
            raise BuildFailed(
                f"{made} is in stacks/{service}.yaml and made for the function {logical_id}, too.",
                f"Remove it from stacks/{service}.yaml, or rename it if it is something else.",
            )
        resources[made] = resource
    resources[role]["Properties"].setdefault("Policies", []).append(_telemetry(f"{role.removesuffix('Role')}Logs"))


def _around(stem: str, name: str, *, is_api: bool) -> Template:
    """Make what every function has beside it."""
    errors = (
        f"The function {name} ended without an answer, out of time or of memory: a bug, never a refusal."
        if is_api
        else f"The function {name} has raised, or run out of time or of memory, for a quarter of an hour."
    )
    return {
        f"{stem}Logs": {
            "Type": LOG_GROUP,
            "Properties": {"LogGroupName": f"/aws/lambda/{name}", "RetentionInDays": LOGS_DAYS},
        },
        f"{stem}ErrorsAlarm": _alarm(f"{name}-errors", errors, "Errors", name, AT_ONCE if is_api else LASTING),
        f"{stem}ThrottlesAlarm": _alarm(
            f"{name}-throttles",
            f"Lambda refused to run {name}: the account's concurrency is used up.",
            "Throttles",
            name,
            AT_ONCE,
        ),
    }


def _alarm(alarm: str, description: str, metric: str, function: str, patience: Mapping[str, int]) -> Resource:
    return {
        "Type": ALARM,
        "Properties": {
            "AlarmName": alarm,
            "AlarmDescription": description,
            "Namespace": "AWS/Lambda",
            "MetricName": metric,
            "Dimensions": [{"Name": "FunctionName", "Value": function}],
            "Statistic": "Sum",
            **patience,
            "Threshold": 1,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
            "AlarmActions": [{"Ref": "AlarmTopic"}],
            "OKActions": [{"Ref": "AlarmTopic"}],
        },
    }


def _telemetry(logs: str) -> Template:
    """Write the policy that lets a function write its logs and its traces."""
    return {
        "PolicyName": "telemetry",
        "PolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "WriteLogs",
                    "Effect": "Allow",
                    "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                    "Resource": {"Fn::GetAtt": [logs, "Arn"]},
                },
                {"Sid": "WriteTraces", "Effect": "Allow", "Action": sorted(ACTIONS_WITHOUT_RESOURCE), "Resource": "*"},
            ],
        },
    }


def _complete_api(api: Resource, service: str) -> None:
    """
    Give the API its name, its limits, its metrics and its own problems.

    Requests are logged by the function, with the id that the caller has too. API Gateway's access log is left off: it
    needs one role for a whole account and region, which is not ours to set.
    """
    properties = api["Properties"]
    # Both: where an API is made from a definition, the definition's title is its name. The alarms go by it.
    properties["Name"] = properties["DefinitionBody"]["info"]["title"] = f"holdfast-{service}"
    properties["TracingEnabled"] = True
    # Without it, SAM adds a second stage, named "Stage", that nobody asked for.
    properties["OpenApiVersion"] = "2.0"
    properties["MethodSettings"] = [
        {
            "ResourcePath": "/*",
            "HttpMethod": "*",
            "MetricsEnabled": True,
            "ThrottlingRateLimit": {"Ref": "RequestsPerSecondMax"},
            "ThrottlingBurstLimit": {"Ref": "RequestsBurstMax"},
        }
    ]
    properties["GatewayResponses"] = dict(_gateway_responses())


def _gateway_responses() -> Iterator[tuple[str, dict[str, Any]]]:
    """Write the table above as API Gateway wants it; the members are those of every problem of the kernel's."""
    for kind, (status, code, retryable, detail) in GATEWAY_RESPONSES.items():
        headers = {"Content-Type": "'application/problem+json'", "Cache-Control": "'no-store'"}
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            headers["Retry-After"] = "'1'"
        problem = {
            "type": PROBLEM_TYPE + code,
            "title": code.replace("_", " ").capitalize(),
            "status": status,
            "detail": detail,
            "code": code,
            "retryable": retryable,
            "request_id": "$context.requestId",
        }
        yield (
            kind,
            {
                "StatusCode": status,
                "ResponseParameters": {"Headers": headers},
                "ResponseTemplates": {"application/json": json.dumps(problem, separators=(",", ":"))},
            },
        )
