"""Subscriptions as they are made, changed, found and ended."""

from datetime import timedelta

import pytest

from holdfast.dynamodb.reads import get
from holdfast.errors import Conflict, Denied, Invalid, NotFound, ServiceError
from holdfast.log import PARTITIONS, partition_of
from holdfast.subscriptions import AllowList, Settings, Subscriptions
from holdfast.subscriptions import registry as module
from holdfast.subscriptions.rows import subscription_key
from holdfast.subscriptions.rules import TYPES_MAX
from holdfast.testing import FaultyTransport
from tests.subscription_lab import ALLOWED, QUEUE, TOPIC


def test_a_subscription_is_read_as_it_was_made(lab):
    made = lab.subscribe("orders", types=("a", "b"), stream_prefix="orders/", target=TOPIC)

    found = lab.registry().get("orders")

    assert found == made
    assert found.settings == Settings(TOPIC, ("a", "b"), "orders/")
    assert (found.created_by, found.begins, found.starts) == ("ann", "start", (0,) * PARTITIONS)
    assert lab.registry().all() == [made]


def test_asking_for_the_same_again_changes_nothing(lab):
    made = lab.subscribe()
    lab.wait(timedelta(hours=1))

    assert lab.subscribe() == made
    assert lab.subscribe(begins="now") == made


def test_a_changed_subscription_goes_on_from_where_it_was(lab):
    made = lab.subscribe()
    lab.append("s/1", 3)
    lab.move(made)

    changed = lab.subscribe(target=TOPIC)
    lab.append("s/1")
    lab.move(changed)

    assert (changed.id, changed.version) == (made.id, made.version + 1)
    assert (lab.arrived(QUEUE), lab.arrived(TOPIC)) == ({"s/1": [1, 2, 3]}, {"s/1": [4]})


def test_a_deleted_subscription_is_gone_and_one_made_anew_begins_anew(lab):
    made = lab.subscribe()
    lab.append("s/1", 2)
    lab.move(made)

    lab.registry().delete("all")

    assert lab.registry().find("all") is None
    assert lab.registry().all() == []
    with pytest.raises(NotFound):
        lab.registry().delete("all")

    again = lab.subscribe()
    lab.move(again)

    assert again.id != made.id
    assert lab.arrived() == {"s/1": [1, 2, 1, 2]}


def test_a_deleted_subscription_leaves_a_row_that_goes_by_itself_and_nothing_else(lab):
    lab.poison.add(("s/1", 1))
    made = lab.subscribe()
    lab.append("s/1")
    lab.move(made)

    lab.registry().delete("all")

    rows = list(lab.lab.transport.rows("operations"))
    assert lab.kinds_of_rows() == ["SUB", "SUBS"]
    (gone,) = (row for row in rows if row["pk"]["S"].startswith("SUB#"))
    assert int(gone["expires"]["N"]) == int((lab.lab.clock.now() + timedelta(days=1)).timestamp())


def test_a_subscription_begins_with_what_comes_or_with_what_is_there(lab):
    lab.append("s/1", 2)
    later, earlier = lab.subscribe("later", begins="now"), lab.subscribe("earlier", target=TOPIC)
    lab.append("s/1")

    lab.move(later)
    lab.move(earlier)

    assert (lab.arrived(QUEUE), lab.arrived(TOPIC)) == ({"s/1": [3]}, {"s/1": [1, 2, 3]})


@pytest.mark.parametrize(
    ("target", "is_allowed"),
    [
        (QUEUE, True),
        (f"{QUEUE}-2", True),
        (TOPIC, True),
        (f"{TOPIC}-2", False),
        (QUEUE.replace("us-east-1", "eu-west-1"), False),
        (QUEUE.replace("123456789012", "210987654321"), False),
    ],
)
def test_only_targets_of_the_list_are_allowed(lab, target, is_allowed):
    if is_allowed:
        assert lab.subscribe(target=target).settings.target == target
    else:
        with pytest.raises(Denied, match="target_not_allowed"):
            lab.subscribe(target=target)


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_an_empty_list_allows_nothing(text):
    with pytest.raises(Denied):
        AllowList.of(text).check(QUEUE)


def test_a_target_that_is_no_longer_allowed_gets_nothing(lab):
    made = lab.subscribe()
    lab.append("s/1")
    deliverer = lab.deliverer()
    narrowed = type(deliverer)(**{**vars(deliverer), "allowed": AllowList.of(TOPIC)})

    with pytest.raises(Denied, match="target_not_allowed"):
        narrowed.move(made, partition_of("s/1"))
    assert lab.arrived() == {}


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 65, "a#b", "a\n"])
def test_what_is_no_name_is_refused(lab, name):
    with pytest.raises(Invalid, match="invalid_subscription"):
        lab.subscribe(name)


@pytest.mark.parametrize(
    "settings",
    [
        {"target": "arn:aws:s3:::bucket"},
        {"target": f"{QUEUE}\n"},
        {"target": "https://example.com"},
        {"types": ("t",) * (TYPES_MAX + 1)},
        {"types": ("",)},
        {"types": ("é" * 257,)},
        {"stream_prefix": "a b"},
        {"stream_prefix": "x" * 201},
    ],
)
def test_settings_that_nothing_could_meet_are_refused(lab, settings):
    with pytest.raises(Invalid):
        lab.subscribe(**settings)


def test_a_tenant_has_no_more_subscriptions_than_the_bound(lab, monkeypatch):
    monkeypatch.setattr(module, "SUBSCRIPTIONS_MAX", 2)
    lab.subscribe("a")
    lab.subscribe("b")

    with pytest.raises(Conflict, match="too_many_subscriptions"):
        lab.subscribe("c")
    lab.registry().delete("a")
    lab.subscribe("c")


def test_tenants_do_not_see_each_others(lab):
    lab.subscribe()
    other = Subscriptions(lab.lab.database(), lab.lab.tables, "other", ALLOWED)

    assert other.all() == []
    assert other.find("all") is None


@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("fault", ["lost_reply", "lost_request", "duplicate", "server_error", "throttle"])
def test_making_and_ending_survive_a_fault_at_any_call(lab, fault, at):
    transport = FaultyTransport(lab.lab.transport, [None] * (at - 1) + [fault])
    registry = lab.registry(transport)

    made = registry.put("all", Settings(QUEUE), begins="start", by="ann")

    assert lab.registry().all() == [made]
    registry.delete("all")
    assert lab.registry().all() == []


def test_a_subscription_is_found_by_its_name_alone(lab):
    made = lab.subscribe("orders")
    key = subscription_key(lab.lab.tenant, "orders")

    row = get(lab.lab.database(), "operations", key["pk"], key["sk"])

    assert row is not None
    assert (row["name"], row["id"]) == ("orders", made.id)
    assert len(str(key["sk"])) <= 38


def test_errors_say_what_to_do(lab):
    with pytest.raises(ServiceError, match="subscription_not_found"):
        lab.registry().get("none")
