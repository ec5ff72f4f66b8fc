"""What stands around the audit trail's functions, as the engine makes it: each part of it in an account of its own."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stacks import changes, cloudformation, deploy, differences, fragments
from stacks.changes import Kind, StackSource
from stacks.deploy import Kept
from stacks.local import settings
from stacks.local.profile import resolved
from tests.local.deploy.conftest import Account, Steps, applied

BUS = "holdfast"
SCENARIO = "holdfast-scenario"


def part(*names: str, **more: Any) -> StackSource:
    """Take these resources out of stacks/audit.yaml."""
    resources = fragments.read("audit")["Resources"]
    parameters = {"AnchorRetentionDays": "1", "EventBus": BUS}
    template = {
        "Parameters": {name: {"Type": "String"} for name in parameters},
        "Resources": {name: resources[name] for name in names} | more,
    }
    return StackSource(SCENARIO, None, template, parameters)


def stands(account: Account, source: StackSource) -> dict[str, str]:
    """Deploy it as the supervisor does, and give the physical names."""
    applied(account, source)
    names = cloudformation.resources(account.target, source.stack)
    profile = differences.local_differences(fragments.with_parameters(source.template, source.parameters))
    settings.apply(account.target.client, resolved(profile, names))
    return names


ANCHORS = ("AnchorBucket", "AnchorBucketPolicy")


@pytest.fixture
def anchors(account: Account) -> str:
    return stands(account, part(*ANCHORS))["AnchorBucket"]


def test_an_anchor_cannot_be_removed_by_the_root_of_the_account(account: Account, anchors: str):
    s3 = account.target.client("s3")
    put = s3.put_object(Bucket=anchors, Key="anchors/1.json", Body=b"{}")

    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=anchors, Key="anchors/1.json", VersionId=put["VersionId"])
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(
            Bucket=anchors, Key="anchors/1.json", VersionId=put["VersionId"], BypassGovernanceRetention=True
        )

    retention = s3.get_object_retention(Bucket=anchors, Key="anchors/1.json")["Retention"]
    assert retention["Mode"] == "COMPLIANCE"
    assert s3.get_object(Bucket=anchors, Key="anchors/1.json")["Body"].read() == b"{}"


def test_an_anchor_is_written_once(account: Account, anchors: str):
    s3 = account.target.client("s3")
    s3.put_object(Bucket=anchors, Key="anchors/1.json", Body=b"first", IfNoneMatch="*")

    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=anchors, Key="anchors/1.json", Body=b"second", IfNoneMatch="*")


def test_setting_the_lock_again_changes_nothing(account: Account, anchors: str):
    locked = account.target.client("s3").get_object_lock_configuration(Bucket=anchors)["ObjectLockConfiguration"]

    stands(account, part(*ANCHORS))

    again = account.target.client("s3").get_object_lock_configuration(Bucket=anchors)["ObjectLockConfiguration"]
    assert (
        locked
        == again
        == {
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}},
        }
    )


@pytest.mark.parametrize("bucket", ["AnchorBucket", "ArchiveBucket"])
def test_a_bucket_of_ours_is_named_for_its_account_versioned_and_private(account: Account, bucket: str):
    name = stands(account, part(bucket, f"{bucket}Policy"))[bucket]
    s3, place = account.target.client("s3"), account.target.place()

    assert name.endswith(f"-{place.account}-{place.region}")
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    closed = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert set(closed.values()) == {True}
    assert s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]


def test_what_is_locked_outlives_even_the_destruction_of_data_and_is_named(account: Account, anchors: str):
    account.target.client("s3").put_object(Bucket=anchors, Key="anchors/1.json", Body=b"{}")

    kept = deploy.destroy(account.target, ["scenario"], Steps(), data=True)

    assert kept == [Kept("AWS::S3::Bucket", anchors)]
    assert account.target.client("s3").get_object(Bucket=anchors, Key="anchors/1.json")["Body"].read() == b"{}"


def test_a_bucket_that_was_kept_is_taken_over_although_its_name_is_worked_out(account: Account, anchors: str):
    account.target.client("s3").put_object(Bucket=anchors, Key="anchors/1.json", Body=b"{}")
    deploy.destroy(account.target, ["scenario"], Steps())

    planned = applied(account, part(*ANCHORS))

    [bucket] = [change for change in planned.of_kind(Kind.ADD) if change.logical_id == "AnchorBucket"]
    assert bucket.why == ("exists already: it is taken over with all that it holds",)
    assert account.target.client("s3").head_object(Bucket=anchors, Key="anchors/1.json")
    assert not changes.has_changes(deploy.plan_sources(account.target, [part(*ANCHORS)], Steps()))


# Keys


def test_the_anchor_key_signs_what_its_public_key_verifies(account: Account):
    key = stands(account, part("AnchorKey", "AnchorKeyAlias"))["AnchorKey"]
    kms = account.target.client("kms")
    how = {"MessageType": "RAW", "SigningAlgorithm": "ECDSA_SHA_256"}

    signature = kms.sign(KeyId="alias/holdfast-audit-anchors", Message=b"heads", **how)["Signature"]

    assert kms.get_public_key(KeyId=key)["KeySpec"] == "ECC_NIST_P256"
    assert kms.verify(KeyId=key, Message=b"heads", Signature=signature, **how)["SignatureValid"]
    with pytest.raises(ClientError, match="KMSInvalidSignature"):
        kms.verify(KeyId=key, Message=b"tails", Signature=signature, **how)


def test_the_subjects_key_makes_data_keys_bound_to_their_context_and_is_rotated(account: Account):
    key = stands(account, part("SubjectsKey", "SubjectsKeyAlias"))["SubjectsKey"]
    kms = account.target.client("kms")

    made = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext={"subject": "ann"})

    opened = kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext={"subject": "ann"})
    assert opened["Plaintext"] == made["Plaintext"]
    with pytest.raises(ClientError, match="InvalidCiphertext"):
        kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext={"subject": "bob"})
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]


# Intake


INTAKE = ("IntakeQueue", "IntakeFailures", "IntakeRule", "IntakeQueuePolicy")


def test_events_of_other_services_wait_in_the_intake_queue_and_our_own_do_not(account: Account):
    bus = {"Type": "AWS::Events::EventBus", "Properties": {"Name": BUS}}
    source = part(*INTAKE, Bus=bus)
    source.template["Resources"]["IntakeRule"]["DependsOn"] = "Bus"
    queue = stands(account, source)["IntakeQueue"]

    def publish(source: str, detail_type: str) -> None:
        entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps({"from": source})}
        account.target.client("events").put_events(Entries=[{**entry, "EventBusName": BUS}])

    publish("holdfast.audit", "holdfast.audit.anchor.signed.v1")
    publish("aws.s3", "Object Created")
    publish("holdfast.flags", "holdfast.flags.flag.changed.v1")
    publish("holdfast.payments", "holdfast.payments.payment.settled.v1")

    queues = account.target.client("sqs")
    found: list[dict[str, Any]] = []
    while batch := queues.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages"):
        found += [json.loads(message["Body"]) for message in batch]
    assert sorted(event["source"] for event in found) == ["holdfast.flags", "holdfast.payments"]
    assert all(event["detail"] == {"from": event["source"]} for event in found)


def test_a_message_that_keeps_failing_is_put_aside(account: Account):
    names = stands(account, part("RebuildQueue", "RebuildFailures"))
    queues = account.target.client("sqs")

    redrive = queues.get_queue_attributes(QueueUrl=names["RebuildQueue"], AttributeNames=["RedrivePolicy"])
    policy = json.loads(redrive["Attributes"]["RedrivePolicy"])

    assert policy["deadLetterTargetArn"].endswith(":holdfast-audit-rebuild-failures")
    assert int(policy["maxReceiveCount"]) == 5
