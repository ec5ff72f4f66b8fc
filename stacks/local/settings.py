"""
Table settings that the engine's CloudFormation forgets, set through the API after a deployment.

Safe to repeat: a setting that stands is not set again. Time-to-live is not among them on purpose: the engine
would then delete rows without a stream record, which `sweeper` does with one.
"""

from typing import Any

from stacks.local.profile import LocalProfile


def apply(dynamodb: Any, profile: LocalProfile) -> None:
    """Give each table the point-in-time recovery and deletion protection that its template asks for."""
    for table in profile.pitr:
        _recover_to_any_time(dynamodb, table)
    for table in profile.deletion_protection:
        _protect_from_deletion(dynamodb, table)


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
