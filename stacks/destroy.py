"""Delete stacks, and with them, if that is asked for, what they would leave behind."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from stacks import cloudformation, tokens
from stacks.services import ARTIFACTS_STACK, BASE_STACK, SERVICES
from stacks.target import Report, Target

KEY_DELETION_DAYS = 7
"""The least that KMS grants to think again."""
BATCH_MAX = 1_000
"""Objects that S3 lists, and deletes, in one request."""
ROUNDS_MAX = 1_000
"""How many such requests empty a bucket."""


@dataclass(frozen=True)
class Kept:
    """Something that has outlived its stack."""

    type: str
    physical_id: str


def destroy(target: Target, services: Sequence[str], report: Report, *, data: bool = False) -> list[Kept]:
    """
    Delete the stacks of *services*, and the shared ones once no service is left.

    What holds data outlives its stack and is listed. With *data*, it is destroyed too: tables and their backups,
    the artifacts, the archive, the keys (KMS waits a week). The local engine holds nothing that must be kept, so there
    everything goes. Only what is locked stays for its time, and is listed whoever asks: nobody can remove an anchor.

    Raises:
        DeployFailed: a stack could not be deleted; those before it are gone.
    """
    kept: list[Kept] = []
    for name in [f"holdfast-{service}" for service in services]:
        kept += _destroy_one(target, name, report)
    if not any(cloudformation.find_stack(target, f"holdfast-{service}") for service in SERVICES):
        kept += _destroy_one(target, BASE_STACK, report)
        kept += [Kept("AWS::SSM::Parameter", name) for name in tokens.published_parameters(target)]
        kept += _destroy_one(target, ARTIFACTS_STACK, report)
    if not (data or target.is_local):
        return kept
    locked: list[Kept] = []
    for each in kept:
        report.step(f"Destroying {each.physical_id}")
        if not _destroy_kept(target, each):
            locked.append(each)
    return locked


def _destroy_one(target: Target, name: str, report: Report) -> list[Kept]:
    stack = cloudformation.find_stack(target, name)
    if stack is None:
        return []
    declared = cloudformation.deployed_template(target, name)["Resources"]
    names = cloudformation.resources(target, name)
    kept = [
        Kept(resource["Type"], names[logical_id])
        for logical_id, resource in declared.items()
        if resource.get("DeletionPolicy") == "Retain" and logical_id in names
    ]
    report.step(f"Deleting {name}")
    cloudformation.delete_stack(target, stack, name)
    return kept


def _destroy_kept(target: Target, kept: Kept) -> bool:
    """Destroy what has outlived its stack; say whether that was possible."""
    match kept.type:
        case "AWS::DynamoDB::Table":
            table = target.client("dynamodb")
            table.update_table(TableName=kept.physical_id, DeletionProtectionEnabled=False)
            table.delete_table(TableName=kept.physical_id)
        case "AWS::S3::Bucket":
            if not _empty_bucket(target, kept.physical_id):
                return False
            target.client("s3").delete_bucket(Bucket=kept.physical_id)
        case "AWS::KMS::Key":
            target.client("kms").schedule_key_deletion(KeyId=kept.physical_id, PendingWindowInDays=KEY_DELETION_DAYS)
        case "AWS::Lambda::LayerVersion":
            name, _, version = kept.physical_id.rpartition(":")
            target.client("lambda").delete_layer_version(LayerName=name, VersionNumber=int(version))
        case "AWS::SSM::Parameter":
            target.client("ssm").delete_parameter(Name=kept.physical_id)
        case _:
            raise AssertionError(f"{kept.type} is kept by a template, and nothing here knows how to destroy it.")
    return True


def _empty_bucket(target: Target, bucket: str) -> bool:
    """Remove every version of every object; say whether none is left, since one that is locked cannot be removed."""
    s3 = target.client("s3")
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": BATCH_MAX})
    refused = []
    for page in islice(pages, ROUNDS_MAX):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
        if objects:
            refused += s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True}).get("Errors", [])
    return not refused
