"""
Settings of tables and buckets that the engine's CloudFormation forgets, set through the API after a deployment.

Safe to repeat: a setting that stands is not set again. Time-to-live is not among them on purpose: the engine
would then delete rows without a stream record, which `sweeper` does with one. A bucket's lock holds for objects that
come later; the locks of those that are there the engine forgets when it stops.
"""

from collections.abc import Callable
from typing import Any

from stacks.local.profile import LocalProfile, ObjectLock


def apply(client: Callable[[str], Any], profile: LocalProfile) -> None:
    """
    Give each table and each bucket what its template asks for.

    Those are point-in-time recovery and deletion protection, and the lock on new objects.
    """
    dynamodb = client("dynamodb")
    for table in profile.pitr:
        _recover_to_any_time(dynamodb, table)
    for table in profile.deletion_protection:
        _protect_from_deletion(dynamodb, table)
    for lock in profile.object_locks:
        _lock_objects(client("s3"), lock)


def _recover_to_any_time(dynamodb: Any, table: str) -> None:
    backups = dynamodb.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    status = backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus")
    if status != "ENABLED":
        dynamodb.update_continuous_backups(
            TableName=table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )


def _protect_from_deletion(dynamodb: Any, table: str) -> None:
    if not dynamodb.describe_table(TableName=table)["Table"].get("DeletionProtectionEnabled"):
        dynamodb.update_table(TableName=table, DeletionProtectionEnabled=True)


def _lock_objects(s3: Any, lock: ObjectLock) -> None:
    wanted = {
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": lock.mode, "Days": lock.days}},
    }
    try:
        stands = s3.get_object_lock_configuration(Bucket=lock.bucket)["ObjectLockConfiguration"]
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "ObjectLockConfigurationNotFoundError":
            raise
        stands = None
    if stands != wanted:
        s3.put_object_lock_configuration(Bucket=lock.bucket, ObjectLockConfiguration=wanted)
