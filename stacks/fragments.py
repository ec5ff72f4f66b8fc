"""
What stacks/*.yaml say, and how one service's file becomes whole.

A service's file holds what only that service has. What it shares with others it asks for, or need not say:

    Metadata:
      Holdfast:
        KeepsStreams: true          everything of stacks/streams.yaml: tables, roles, triggers, alarms
        SpeaksWebsockets: true      everything of stacks/websockets.yaml: an API, its routes, the role of `Tail`
        Awaits: [Anchor, Repair]    functions that the file knows already and the code does not have yet

A function that is awaited takes with it whatever speaks of it: its role, its triggers, the rules that call it. So a
file may be ahead of its functions, and is whole the moment they are there. Any other function that is spoken of and
does not exist is an error, and so is one that `stacks/streams.yaml` needs.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from stacks import ROOT, BuildFailed

Template = dict[str, Any]
Resource = dict[str, Any]

STREAMS: Final = "streams"
"""The file that a service which keeps streams is joined with."""
WEBSOCKETS: Final = "websockets"
"""The file that a service which speaks over WebSockets is joined with."""
SERVICE: Final = "Service"
"""The parameter of these files that stands for the service's name; it is filled in when it is joined."""
SECTIONS: Final = ("Parameters", "Conditions", "Mappings", "Resources", "Outputs")
"""The parts of a template that hold things by name."""
ROLE: Final = "AWS::IAM::Role"

API_HANDLER: Final = "APIHandler"
"""Chalice's logical id of the function behind an API's routes."""


class Asked(msgspec.Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """What a file asks for under `Metadata.Holdfast`."""

    keeps_streams: bool = False
    speaks_websockets: bool = False
    awaits: tuple[str, ...] = ()


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


def whole(own: Template, service: str, functions: Collection[str], root: Path = ROOT) -> Template:
    """
    Give a service's file with what it asks for, and without what belongs to functions that it awaits.

    *functions* are the logical ids of those that exist.

    Raises:
        BuildFailed: it asks for what there is not, or for what it has itself.
    """
    asked = _asked(own, service)
    template = own
    for name, is_asked in ((WEBSOCKETS, asked.speaks_websockets), (STREAMS, asked.keeps_streams)):
        if is_asked:
            template = joined(_fragment(name, service, root), template, f"stacks/{name}.yaml", service)
    template = _without(template, {name for name in asked.awaits if name not in functions})
    idle = sorted(set(_roles(template)) - {role_name(function) for function in functions})
    if idle:
        raise BuildFailed(
            f"stacks/{service}.yaml comes with {', '.join(idle)}, and functions/{service} has no such function.",
            f"Declare it in functions/{service}/app.py, or name it under Metadata.Holdfast.Awaits until it is there.",
        )
    return template


def role_name(logical_id: str) -> str:
    """Name the role of a function in stacks/<service>.yaml."""
    return "ApiHandlerRole" if logical_id == API_HANDLER else f"{logical_id}Role"


def _fragment(name: str, service: str, root: Path) -> Template:
    template: Template = _filled(read(name, root), {SERVICE: service})
    del template["Parameters"][SERVICE]
    return template


def joined(first: Template, second: Template, source: str, service: str) -> Template:
    """
    Put two templates together, the functions' common variables too; what only one has is as it is there.

    Raises:
        BuildFailed: both define the same name.
    """
    result = first | second
    for section in SECTIONS:
        if section in first or section in second:
            result[section] = _joined(section, first.get(section, {}), second.get(section, {}), source, service)
    variables = _joined("Variables", _variables(first), _variables(second), source, service)
    if variables:
        result["Globals"] = {"Function": {"Environment": {"Variables": variables}}}
    return result


def _joined(section: str, first: Template, second: Template, source: str, service: str) -> Template:
    both = sorted(first.keys() & second.keys())
    if section == "Parameters":
        # A parameter is only asked for, and two may ask for the same.
        both = [name for name in both if first[name] != second[name]]
    if both:
        raise BuildFailed(
            f"{section} {', '.join(both)}: both in stacks/{service}.yaml and made by {source}.",
            f"Rename it in stacks/{service}.yaml; what is made for every service is completed in stacks/template.py.",
        )
    return first | second


def _variables(template: Template) -> Template:
    found: Template = template.get("Globals", {}).get("Function", {}).get("Environment", {}).get("Variables", {})
    return found


def _asked(own: Template, service: str) -> Asked:
    try:
        return msgspec.convert(own.get("Metadata", {}).get("Holdfast", {}), Asked)
    except msgspec.ValidationError as error:
        raise BuildFailed(
            f"stacks/{service}.yaml asks under Metadata.Holdfast for what there is not: {error}",
            "stacks/fragments.py says what can be asked for.",
        ) from error


# Functions that are not there yet


def _without(template: Template, functions: Collection[str]) -> Template:
    """Leave out the roles of *functions*, and whatever speaks of those, of them, or of what is left out for it."""
    gone = set(functions) | {role_name(name) for name in functions}
    kept = {section: template[section] for section in ("Resources", "Outputs") if section in template}
    while left_out := {
        name
        for section in kept.values()
        for name, each in section.items()
        if name in gone or not gone.isdisjoint(names_in(each))
    }:
        gone |= left_out
        kept = {
            section: {name: each for name, each in entries.items() if name not in left_out}
            for section, entries in kept.items()
        }
    # A condition that nothing asks for any more is a warning of its own.
    asked_for = json.dumps([kept, template.get("Globals", {})])
    conditions = {name: each for name, each in template.get("Conditions", {}).items() if f'"{name}"' in asked_for}
    return template | kept | ({"Conditions": conditions} if "Conditions" in template else {})


def _roles(template: Template) -> Iterator[str]:
    return (name for name, each in template["Resources"].items() if each["Type"] == ROLE)


def names_in(value: Any) -> Iterator[str]:
    """List the resources and parameters that a value speaks of."""
    match value:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
            yield name
        case {"Fn::Sub": str(pattern)}:
            yield from re.findall(r"\$\{(\w+)", pattern)
        case {"Fn::Sub": [str(pattern), dict(names)]}:
            yield from re.findall(r"\$\{(\w+)", pattern)
            yield from names_in(list(names.values()))
        case dict():
            for name, each in value.items():
                yield from _named(each) if name == "DependsOn" else names_in(each)
        case list():
            for each in value:
                yield from names_in(each)


def _named(depends_on: Any) -> list[str]:
    return [depends_on] if isinstance(depends_on, str) else list(depends_on)


# Parameters


def with_parameters(template: Template, parameters: Mapping[str, str]) -> Template:
    """
    Fill parameters (or their defaults) in where a template refers to them, so that what they change shows.

    AWS's own (`AWS::Region`) may be among them. A pattern of which nothing is left to be filled in becomes its text.
    """
    declared = template.get("Parameters", {})
    given = {name: str(each["Default"]) for name, each in declared.items() if "Default" in each} | dict(parameters)
    filled: Template = _filled(
        template,
        {
            name: value.split(",") if declared.get(name, {}).get("Type") == "CommaDelimitedList" else value
            for name, value in given.items()
        },
    )
    return filled


def _filled(value: Any, parameters: Mapping[str, Any]) -> Any:
    match value:
        case {"Ref": str(name)} if name in parameters:
            return parameters[name]
        case {"Fn::Sub": str(pattern)}:
            text = re.sub(r"\$\{([\w:]+)\}", lambda m: parameters.get(m[1], m[0]), pattern)
            return {"Fn::Sub": text} if "${" in text else text
        case dict():
            return {key: _filled(each, parameters) for key, each in value.items()}
        case list():
            return [_filled(each, parameters) for each in value]
        case _:
            return value
