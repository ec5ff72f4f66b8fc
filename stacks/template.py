"""
What CloudFormation gets: Chalice's template and stacks/<service>.yaml, made one.

Chalice knows the functions, their routes and their triggers; the yaml file knows what they stand on. The
two never speak of the same thing: a name that both use is an error. What is added here is what every
service shares, so that no yaml file has to repeat it:

* a function gets the role that the yaml file names after it, and its logs the group made for it there;
* its code, its layers, and the settings that the kernel reads;
* the API's own refusals, made before any function runs, are problems (RFC 9457) like all others.
"""

import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from holdfast.http.answers import PROBLEM_TYPE
from stacks import ROOT, BuildFailed
from stacks.bundle import Bundle
from stacks.local.profile import LocalProfile, StreamSource, TtlAttribute

Template = dict[str, Any]
Resource = dict[str, Any]

INLINE_BYTES_MAX = 51_200
"""The most that CloudFormation takes in a request (TemplateBody); a larger template travels by S3."""

API = "RestAPI"
API_HANDLER = "APIHandler"
"""Chalice's logical ids of the API and of the function behind its routes."""

FUNCTION = "AWS::Serverless::Function"
TABLE = "AWS::DynamoDB::Table"
EVENT_SOURCE = "AWS::Lambda::EventSourceMapping"
LOG_GROUP = "AWS::Logs::LogGroup"
ALARM = "AWS::CloudWatch::Alarm"

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


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms: `!Ref X` is `{"Ref": "X"}`."""


def _short_form(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    match node:
        case yaml.ScalarNode():
            value: Any = loader.construct_scalar(node)
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
        case yaml.MappingNode():
            value = loader.construct_mapping(node, deep=True)
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {tag if tag in {"Ref", "Condition"} else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _short_form)


def read(name: str, root: Path = ROOT) -> Template:
    """
    Read `stacks/<name>.yaml`.

    Raises:
        BuildFailed: there is no such file.
    """
    path = root / "stacks" / f"{name}.yaml"
    if not path.exists():
        raise BuildFailed(f"There is no stacks/{name}.yaml.", "A service has its tables, roles and alarms there.")
    template: Template = yaml.load(path.read_text(), _Loader)  # noqa: S506 - a SafeLoader with CloudFormation's tags
    return template


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


def merge(bundle: Bundle, own: Template) -> Template:
    """
    Make one template of Chalice's and of stacks/<service>.yaml.

    Raises:
        BuildFailed: both define the same name, or a function lacks its role or its log group.
    """
    merged = json.loads(json.dumps(bundle.template))
    for section in ("Parameters", "Resources", "Outputs"):
        merged[section] = _joined(section, merged.get(section, {}), own.get(section, {}), bundle.service)
    for section in ("Description", "Conditions", "Mappings", "Globals"):
        if section in own:
            merged[section] = own[section]
    merged["Parameters"] |= _shared_parameters()
    for logical_id, resource in merged["Resources"].items():
        if resource["Type"] == FUNCTION:
            _complete_function(logical_id, resource, bundle.service, merged["Resources"])
    if API in merged["Resources"]:
        _complete_api(merged["Resources"][API], bundle.service)
    return merged  # type: ignore[no-any-return]


def _joined(section: str, chalice: Template, own: Template, service: str) -> Template:
    both = sorted(chalice.keys() & own.keys())
    if both:
        raise BuildFailed(
            f"{section} {', '.join(both)}: both in stacks/{service}.yaml and made by Chalice from functions/{service}.",
            f"Rename it in stacks/{service}.yaml; what Chalice declares is completed in stacks/template.py.",
        )
    return chalice | own


def _shared_parameters() -> Template:
    return {
        "ArtifactBucket": {"Type": "String"},
        "CodeKey": {"Type": "String"},
        "KernelLayerArn": {"Type": "String"},
        "DependenciesLayerArn": {"Type": "String"},
        "RevocationsTable": {"Type": "String"},
        "RequestsPerSecondMax": {"Type": "Number", "Default": REQUESTS_PER_SECOND_MAX},
        "RequestsBurstMax": {"Type": "Number", "Default": REQUESTS_BURST_MAX},
    }


def function_name(service: str, logical_id: str) -> str:
    """Name a function by its service and by what it does: a stable name, which its log group and alarms have too."""
    if logical_id == API_HANDLER:
        return f"holdfast-{service}-api"
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", logical_id)
    return f"holdfast-{service}-{words.lower()}"


def role_name(logical_id: str) -> str:
    """Name the role of a function in stacks/<service>.yaml."""
    return "ApiHandlerRole" if logical_id == API_HANDLER else f"{logical_id}Role"


def _complete_function(logical_id: str, function: Resource, service: str, resources: Template) -> None:
    name, role = function_name(service, logical_id), role_name(logical_id)
    log_group = f"/aws/lambda/{name}"
    groups = [r["Properties"].get("LogGroupName") for r in resources.values() if r["Type"] == LOG_GROUP]
    for missing, what in ((role not in resources, role), (log_group not in groups, f"a log group {log_group}")):
        if missing:
            raise BuildFailed(
                f"stacks/{service}.yaml has no {what}, which the function {logical_id} needs.",
                "Each function has a role of its own with just what it calls, and logs with an end.",
            )
    properties = function["Properties"]
    properties["FunctionName"] = name
    properties["Role"] = {"Fn::GetAtt": [role, "Arn"]}
    properties["CodeUri"] = {"Bucket": {"Ref": "ArtifactBucket"}, "Key": {"Ref": "CodeKey"}}
    properties["Layers"] = [{"Ref": "KernelLayerArn"}, {"Ref": "DependenciesLayerArn"}]
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


def local_differences(template: Template) -> LocalProfile:
    """Read out of a template what the local engine drops, for stacks.local to put right beside it."""
    tables = {i: r["Properties"] for i, r in template["Resources"].items() if r["Type"] == TABLE}
    return LocalProfile(
        streams=tuple(source for _, _, source in _stream_sources(template)),
        ttl=tuple(
            TtlAttribute(table=logical_id, attribute=table["TimeToLiveSpecification"]["AttributeName"])
            for logical_id, table in tables.items()
            if table.get("TimeToLiveSpecification", {}).get("Enabled")
        ),
        pitr=tuple(
            logical_id
            for logical_id, table in tables.items()
            if table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled")
        ),
        deletion_protection=tuple(
            logical_id for logical_id, table in tables.items() if table.get("DeletionProtectionEnabled")
        ),
    )


def for_local_engine(template: Template) -> Template:
    """
    Leave out what the local engine does wrongly, or refuses.

    * Functions' triggers on table streams: its stream mapping drops failed records, retries without end and lets one
      slow function hold up all others. stacks.local does it instead.
    * Alarms over metric math, which it refuses; it has no such metrics anyway.
    """
    local: Template = json.loads(json.dumps(template))
    local["Resources"] = {
        logical_id: resource
        for logical_id, resource in local["Resources"].items()
        if not (resource["Type"] == ALARM and "Metrics" in resource["Properties"])
    }
    for owner, event, _ in list(_stream_sources(local)):
        if event is None:
            del local["Resources"][owner]
        else:
            del local["Resources"][owner]["Properties"]["Events"][event]
    return local


def _stream_sources(template: Template) -> Iterator[tuple[str, str | None, StreamSource]]:
    """Find every trigger on a table's stream: its resource, its name in there if it is a function's event, itself."""
    for logical_id, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        if resource["Type"] == FUNCTION:
            for name, event in properties.get("Events", {}).items():
                if event["Type"] == "DynamoDB":
                    yield (
                        logical_id,
                        name,
                        _stream_source(logical_id, event["Properties"]["Stream"], event["Properties"]),
                    )
        elif resource["Type"] == EVENT_SOURCE and _is_table_stream(properties.get("EventSourceArn")):
            function = _name(properties["FunctionName"])
            yield logical_id, None, _stream_source(function, properties["EventSourceArn"], properties)


def _is_table_stream(arn: object) -> bool:
    return (isinstance(arn, dict) and arn.get("Fn::GetAtt", [None, None])[1] == "StreamArn") or (
        isinstance(arn, str) and ":dynamodb:" in arn
    )


def _stream_source(function: str, stream: Any, properties: Template) -> StreamSource:
    chosen = {
        field: properties[given]
        for field, given in (
            ("batch_size", "BatchSize"),
            ("starting_position", "StartingPosition"),
            ("bisect", "BisectBatchOnFunctionError"),
            ("retries_max", "MaximumRetryAttempts"),
        )
        if given in properties
    }
    destination = properties.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    return StreamSource(
        table=_name(stream),
        function_name=function,
        on_failure_arn=_name(destination) if destination is not None else None,
        reports_item_failures="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
        filters=tuple(each["Pattern"] for each in properties.get("FilterCriteria", {}).get("Filters", [])),
        **chosen,
    )


def _name(value: Any) -> str:
    """Say which resource a value speaks of: its logical id, or the name itself if it is written out."""
    match value:
        case {"Ref": str(logical_id)} | {"Fn::GetAtt": [str(logical_id), *_]}:
            return logical_id
        case str():
            # arn:aws:dynamodb:<region>:<account>:table/<name>/stream/<label>
            table = re.search(r":table/([^/]+)/stream/", value)
            return table.group(1) if table else value
    raise BuildFailed(
        f"{value!r} names no resource that stacks/local can find.",
        "Write a trigger's table, function and destination as Ref, Fn::GetAtt or a literal ARN.",
    )
