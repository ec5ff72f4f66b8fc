from typing import Any

import pytest

from stacks import changes, fragments, permissions
from stacks.changes import Change, Kind, Risk, StackPlan, StackSource
from stacks.fragments import Template
from stacks.permissions import Widening

TABLE = "AWS::DynamoDB::Table"
COMMITS_ARN = {"Fn::GetAtt": ["Commits", "Arn"]}


def described(action: str, **members: Any) -> dict[str, Any]:
    """One ResourceChange, as DescribeChangeSet gives it."""
    return {"Action": action, "LogicalResourceId": "Commits", "ResourceType": TABLE, **members}


def detail(name: str, source: str = "DirectModification", **members: Any) -> dict[str, Any]:
    return {"Target": {"Attribute": "Properties", "Name": name}, "ChangeSource": source, **members}


def table(**properties: Any) -> dict[str, Any]:
    return {"Type": TABLE, "Properties": properties}


def template(**resources: Any) -> Template:
    return {"Resources": resources}


def role(*statements: dict[str, Any], **properties: Any) -> dict[str, Any]:
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    inline = {"PolicyName": "p", "PolicyDocument": document}
    return {"Type": "AWS::IAM::Role", "Properties": {"Policies": [inline], **properties}}


def allow(action: str | list[str], resource: Any = "*", **members: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **members}


def deny(action: str, resource: Any = "*", **members: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": resource, **members}


def widened(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    found = permissions.permissions_widened(template(Role=before), template(Role=after))
    return [(widening.grant, widening.why) for widening in found]


def plan(*kinds: Kind, resource_type: str = TABLE, stack: str = "holdfast-audit") -> StackPlan:
    told = tuple(Change(kind, f"R{number}", resource_type) for number, kind in enumerate(kinds))
    risks = changes.data_at_risk(told, {}, {})
    return StackPlan(StackSource(stack, None, {}, {}), False, "id", told, (), risks)


# Kinds


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (described("Add"), Kind.ADD),
        (described("Remove"), Kind.DELETE),
        (described("Modify", Replacement="True", Details=[detail("TableName")]), Kind.REPLACE),
        (described("Modify", Replacement="False", Details=[detail("Tags")]), Kind.CHANGE),
        (described("Modify", Replacement="Conditional", Details=[detail("KeySchema")]), Kind.REPLACE),
        (described("Modify", Replacement="Conditional", Details=[detail("BillingMode")]), Kind.CHANGE),
        (
            described("Modify", Replacement="Conditional", Details=[detail("X")], ResourceType="AWS::SNS::Topic"),
            Kind.CHANGE,
        ),
    ],
)
def test_a_change_is_told_by_its_kind(told: dict[str, Any], kind: Kind):
    assert changes.change_of(told).kind == kind


def test_what_may_be_replaced_and_holds_no_data_is_said_to_be_uncertain():
    told = described("Modify", Replacement="Conditional", Details=[detail("X")], ResourceType="AWS::SNS::Topic")

    assert "may be replaced: CloudFormation cannot tell before it does it" in changes.change_of(told).why


def test_a_change_says_through_what_it_comes():
    told = described(
        "Modify", Replacement="False", Details=[detail("Code", "ParameterReference", CausingEntity="CodeKey")]
    )

    assert changes.change_of(told).why == ("Code through a parameter (CodeKey)",)


@pytest.mark.parametrize("action", ["Retain", "ReplaceAndRetain"])
def test_what_is_kept_though_removed_is_said_to_be_kept(action: str):
    assert "what is there now is kept" in changes.change_of(described("Remove", PolicyAction=action)).why[0]


# Data at risk


@pytest.mark.parametrize("kind", [Kind.REPLACE, Kind.DELETE])
@pytest.mark.parametrize("resource_type", [TABLE, "AWS::S3::Bucket", "AWS::KMS::Key", "AWS::SQS::Queue"])
def test_replacing_or_removing_what_holds_data_is_a_loss(kind: Kind, resource_type: str):
    [risk] = changes.data_at_risk([Change(kind, "R", resource_type)], {}, {})

    assert risk.is_loss


@pytest.mark.parametrize(
    ("kind", "resource_type"), [(Kind.CHANGE, TABLE), (Kind.ADD, TABLE), (Kind.DELETE, "AWS::SNS::Topic")]
)
def test_other_changes_lose_nothing(kind: Kind, resource_type: str):
    assert changes.data_at_risk([Change(kind, "R", resource_type)], {}, {}) == ()


PITR = {"PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True}}
BUCKET, LOGS, KEY = "AWS::S3::Bucket", "AWS::Logs::LogGroup", "AWS::KMS::Key"


def locked(mode: str = "COMPLIANCE", days: int | str = 30) -> dict[str, Any]:
    retention = {"DefaultRetention": {"Mode": mode, "Days": days}}
    return {"Type": BUCKET, "Properties": {"ObjectLockConfiguration": {"Rule": retention}}}


def open_bucket(**closed: bool) -> dict[str, Any]:
    return {"Type": BUCKET, "Properties": {"PublicAccessBlockConfiguration": closed}}


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (table(DeletionProtectionEnabled=True), table(), "deletion protection"),
        (table(DeletionProtectionEnabled=True), table(DeletionProtectionEnabled=False), "deletion protection"),
        (table(**PITR), table(), "point-in-time recovery"),
        (table(SSESpecification={"SSEEnabled": True}), table(), "KMS encryption"),
        (table(), table(TimeToLiveSpecification={"AttributeName": "rt"}), "rows deleted"),
        ({**table(), "DeletionPolicy": "Retain"}, table(), "deleted with its stack"),
        ({**table(), "UpdateReplacePolicy": "Retain"}, table(), "deleted when it is replaced"),
        (
            {"Type": BUCKET, "Properties": {"VersioningConfiguration": {"Status": "Enabled"}}},
            {"Type": BUCKET, "Properties": {"VersioningConfiguration": {"Status": "Suspended"}}},
            "no longer versioned",
        ),
        ({"Type": LOGS, "Properties": {}}, {"Type": LOGS, "Properties": {"RetentionInDays": 30}}, "shorter time"),
        (
            {"Type": LOGS, "Properties": {"RetentionInDays": 30}},
            {"Type": LOGS, "Properties": {"RetentionInDays": "7"}},
            "shorter time",
        ),
        (
            {"Type": LOGS, "Properties": {"RetentionInDays": 30}},
            {"Type": LOGS, "Properties": {"RetentionInDays": {"Fn::If": ["C", 1, 60]}}},
            "shorter time",
        ),
        (
            {"Type": KEY, "Properties": {"PendingWindowInDays": 30}},
            {"Type": KEY, "Properties": {"PendingWindowInDays": 7}},
            "destroyed sooner",
        ),
        (
            {"Type": KEY, "Properties": {"EnableKeyRotation": True}},
            {"Type": KEY, "Properties": {}},
            "no longer rotated",
        ),
        (locked(mode="COMPLIANCE"), locked(mode="GOVERNANCE"), "less firmly"),
        (locked(mode="COMPLIANCE"), {"Type": BUCKET, "Properties": {}}, "no longer"),
        (locked(days=30), locked(days="7"), "for a shorter time"),
        (open_bucket(BlockPublicAcls=True), open_bucket(BlockPublicAcls=False), "opened to everybody"),
        (open_bucket(BlockPublicAcls=True), {"Type": BUCKET, "Properties": {}}, "opened to everybody"),
    ],
)
def test_a_protection_that_ends_is_a_risk_and_no_loss(before: Template, after: Template, what: str):
    [risk] = changes.data_at_risk([], template(R=before), template(R=after))

    assert what in risk.what
    assert not risk.is_loss


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (table(), table(DeletionProtectionEnabled=True)),
        (table(**PITR), table(**PITR)),
        ({"Type": LOGS, "Properties": {"RetentionInDays": 7}}, {"Type": LOGS, "Properties": {"RetentionInDays": 30}}),
        ({"Type": LOGS, "Properties": {"RetentionInDays": 7}}, {"Type": LOGS, "Properties": {}}),
        (table(), {**table(), "DeletionPolicy": "Retain"}),
        ({"Type": BUCKET, "Properties": {}}, locked(days=7)),
        (locked(mode="GOVERNANCE", days=7), locked(mode="COMPLIANCE", days="30")),
        (open_bucket(BlockPublicAcls=False), open_bucket(BlockPublicAcls=True)),
    ],
)
def test_a_protection_that_stays_or_grows_is_no_risk(before: Template, after: Template):
    assert changes.data_at_risk([], template(R=before), template(R=after)) == ()


def test_losses_are_told_before_protections():
    risks = changes.data_at_risk([Change(Kind.DELETE, "Z", TABLE)], template(A=table(**PITR)), template(A=table()))

    assert [risk.logical_id for risk in risks] == ["Z", "A"]


# Who has to agree


def test_a_plan_that_loses_data_needs_its_stacks_name_typed():
    plans = [plan(Kind.ADD, stack="holdfast-base"), plan(Kind.DELETE)]

    assert changes.names_to_type(plans) == ("holdfast-audit",)


def test_yes_answers_the_question_and_never_the_typed_name():
    loses, keeps = [plan(Kind.REPLACE)], [plan(Kind.CHANGE)]

    assert changes.is_confirmed(keeps, yes=True, typed=[])
    assert not changes.is_confirmed(keeps, yes=False, typed=[])
    assert not changes.is_confirmed(loses, yes=True, typed=[])
    assert not changes.is_confirmed(loses, yes=True, typed=["holdfast-base"])
    assert not changes.is_confirmed(loses, yes=False, typed=["holdfast-audit"])
    assert changes.is_confirmed(loses, yes=True, typed=["holdfast-audit"])


def test_there_is_nothing_to_ask_where_nothing_changes():
    assert changes.is_confirmed([plan()], yes=False, typed=[])
    assert not changes.has_changes([plan()])


def test_changes_are_given_by_kind():
    each = plan(Kind.ADD, Kind.DELETE, Kind.ADD)

    assert [change.logical_id for change in each.of_kind(Kind.ADD)] == ["R0", "R2"]


# Permissions widened


def test_a_new_action_widens():
    assert widened(role(allow("s3:Get", "b")), role(allow(["s3:Get", "s3:Put"], "b"))) == [
        ("s3:Put on b", "new action")
    ]


def test_a_broader_resource_widens():
    assert widened(role(allow("s3:Get", "b/a")), role(allow("s3:Get", "b/*"))) == [
        ("s3:Get on b/*", "broader resource")
    ]


def test_a_removed_condition_widens():
    condition = {"StringEquals": {"aws:PrincipalTag/tenant": "a"}}

    assert widened(role(allow("s3:Get", "b", Condition=condition)), role(allow("s3:Get", "b"))) == [
        ("s3:Get on b", "condition removed")
    ]


def test_another_condition_is_taken_for_a_wider_one():
    before, after = ({"StringLike": {"k": value}} for value in ("a", "*"))

    [(_, why)] = widened(role(allow("s3:Get", "b", Condition=before)), role(allow("s3:Get", "b", Condition=after)))

    assert why == "condition removed"


def test_a_new_role_is_told_whole():
    found = permissions.permissions_widened({}, template(Role=role(allow("s3:Get", "b"))))

    assert found == (Widening("Role", "s3:Get on b", "new"),)


def test_a_denial_that_ends_or_shrinks_widens():
    assert widened(role(deny("s3:*", "b")), role()) == [("s3:* on b", "denial removed")]
    assert widened(role(deny("s3:*", "b")), role(deny("s3:Put", "b"))) == [("s3:* on b", "denial removed")]
    assert widened(role(deny("s3:Put", "b")), role(deny("s3:*", "*"))) == []


def test_an_allowance_does_not_follow_from_a_denial():
    assert widened(role(deny("s3:Get", "b")), role(allow("s3:Get", "b"), deny("s3:Get", "b"))) == [
        ("s3:Get on b", "new action")
    ]


@pytest.mark.parametrize(
    "after",
    [
        role(allow("s3:Get", "b"), allow("s3:Put", "b")),
        role(allow(["S3:PUT", "s3:get"], ["b"], Sid="Renamed")),
        role(allow("s3:Put", "b")),
        role(allow("s3:Get", "b", Condition={"Bool": {"aws:SecureTransport": "true"}})),
        role(),
    ],
    ids=["split", "rewritten", "less", "under a condition", "nothing"],
)
def test_the_same_or_less_said_otherwise_widens_nothing(after: dict[str, Any]):
    assert widened(role(allow(["s3:Get", "s3:Put"], "b")), after) == []


def test_a_wildcard_covers_what_it_matches_and_no_wider_wildcard():
    assert widened(role(allow("s3:Get*", "b/*")), role(allow("s3:GetObject", "b/x"))) == []
    assert widened(role(allow("s3:Get*", "b/*")), role(allow("s3:*", "b/x"))) == [("s3:* on b/x", "new action")]
    assert widened(role(allow("s3:Get", "b?")), role(allow("s3:Get", "b*"))) == [("s3:Get on b*", "broader resource")]
    assert widened(role(allow("s3:Get", "b.c")), role(allow("s3:Get", "bxc"))) == [
        ("s3:Get on bxc", "broader resource")
    ]


def test_the_same_resource_named_in_another_way_widens_nothing():
    sub = {"Fn::Sub": "${Commits.Arn}"}

    assert widened(role(allow("dynamodb:Query", COMMITS_ARN)), role(allow("dynamodb:Query", sub))) == []


def test_everything_but_something_equals_only_itself():
    before = {"Effect": "Allow", "NotAction": ["iam:*"], "Resource": "*"}

    assert widened(role(before), role(before)) == []
    assert widened(role(before), role({**before, "NotAction": ["iam:Get*"]})) != []


def test_a_managed_policy_widens_by_all_that_it_allows():
    arn = "arn:aws:iam::aws:policy/AdministratorAccess"

    assert widened(role(), role(ManagedPolicyArns=[arn])) == [(f"every action of {arn} on *", "new action")]


def test_a_lost_boundary_widens():
    assert widened(role(PermissionsBoundary="arn:b"), role()) == [("everything beyond arn:b on *", "denial removed")]


def test_somebody_else_who_may_take_the_role_widens():
    def trust(service: str) -> dict[str, Any]:
        statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        return {"AssumeRolePolicyDocument": {"Statement": [statement]}}

    [(grant, why)] = widened(role(**trust("lambda.amazonaws.com")), role(**trust("ec2.amazonaws.com")))

    assert grant == "Service ec2.amazonaws.com: sts:AssumeRole on itself"
    assert why == "new principal"


def test_resource_policies_are_compared_too():
    def key(principal: str) -> dict[str, Any]:
        statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "kms:*", "Resource": "*"}
        return {"Type": KEY, "Properties": {"KeyPolicy": {"Statement": [statement]}}}

    assert permissions.permissions_widened(template(K=key("a")), template(K=key("a"))) == ()
    assert len(permissions.permissions_widened(template(K=key("a")), template(K=key("*")))) == 1


def test_a_function_that_more_may_call_widens():
    def permission(**properties: Any) -> dict[str, Any]:
        return {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "FunctionName": {"Ref": "F"},
                "Action": "lambda:InvokeFunction",
                "Principal": "apigateway.amazonaws.com",
                **properties,
            },
        }

    [found] = permissions.permissions_widened(template(P=permission(SourceArn="arn:x")), template(P=permission()))

    assert found.why == "condition removed"


def test_what_a_parameter_changes_is_seen():
    one = {"Parameters": {"Bucket": {"Default": "b"}}, **template(Role=role(allow("s3:Get", {"Ref": "Bucket"})))}

    before = fragments.with_parameters(one, {})
    after = fragments.with_parameters(one, {"Bucket": "*"})

    assert permissions.permissions_widened(before, after) == (Widening("Role", "s3:Get on *", "broader resource"),)


def test_parameters_are_filled_in_inside_text_and_other_names_are_left():
    filled = fragments.with_parameters(
        {"R": {"Fn::Sub": "arn:${AWS::Region}:${Bucket}/${Commits.Arn}"}}, {"Bucket": "b"}
    )

    assert filled == {"R": {"Fn::Sub": "arn:${AWS::Region}:b/${Commits.Arn}"}}


def test_a_removed_role_widens_nothing():
    assert permissions.permissions_widened(template(Role=role(deny("s3:*"))), template()) == ()


def test_a_risk_reads_as_a_sentence():
    assert changes.data_at_risk([Change(Kind.DELETE, "Commits", TABLE)], {}, {}) == (
        Risk("Commits", TABLE, "is removed from the stack", is_loss=True),
    )
