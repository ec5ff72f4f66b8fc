"""Rows that no table takes: too large, or of kinds that it does not keep. Their streams stand still, and no others."""

from typing import Any

import pytest

from holdfast.errors import Unavailable
from holdfast.log import partition_of
from holdfast.projections import Generation, Key
from holdfast.projections.redrive import Redrive
from tests.archive_lab import streams_together
from tests.log_lab import EveryEvent, PerStream


class Weighty(PerStream):
    """A counting view whose rows hold what a test says, beside what they count."""

    def __init__(self, extra: dict[str, dict[str, Any]], rows: int = 1) -> None:
        self.extra = extra
        self.rows_of_each = rows

    def keys(self, event: Any) -> Any:
        return [Key(str(event.partition), f"{event.stream}#{number}") for number in range(self.rows_of_each)]

    def change(self, key: Any, row: Any, event: Any) -> Any:
        return {**super().change(key, row, event), **self.extra.get(event.stream, {})}


class WeightyEvents(EveryEvent):
    """A listing view of such rows."""

    def __init__(self, extra: dict[str, dict[str, Any]]) -> None:
        self.extra = extra

    def rows(self, event: Any) -> Any:
        for key, row in super().rows(event):
            yield key, {**row, **self.extra.get(event.stream, {})}


def nested(levels: int) -> Any:
    return {"in": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    "extra",
    [{"text": "é" * 205_000}, {"n": 2**70}, {"n": 0.5}, nested(34)],
    ids=["bytes", "number", "kind", "levels"],
)
def test_a_row_that_cannot_be_kept_stops_its_stream_and_no_other(lab, extra):
    ours, other = streams_together(2)
    lab.indexer().index([lab.append(stream, 2) for stream in (ours, other)])
    projector = lab.projector(views=[WeightyEvents({ours: extra}), Weighty({ours: extra})])

    projector.project(lab.tenant, 0)

    for view, rows in (("every", 2), ("per-stream", 1)):
        generation = Generation(view, 1, lab.tenant)
        (parked,) = Redrive(projector).parked(generation, 0)
        assert (parked.stream, parked.version) == (ours, 1)
        assert projector.checkpoint(generation, 0).position == lab.log().head(0).position
        assert len(list(lab.views().rows(generation, "0"))) == rows


def test_rows_that_are_too_much_for_one_transaction_are_written_in_several(lab):
    streams = streams_together(30)
    lab.indexer().index([lab.append(stream) for stream in streams])
    large = Weighty({stream: {"text": "x" * 300_000} for stream in streams})
    projector, generation = lab.projector(views=[large]), Generation("per-stream", 1, lab.tenant)

    projector.project(lab.tenant, 0)
    lab.indexer().index([lab.append(stream) for stream in streams])
    small = lab.projector(views=[Weighty({})])  # as rows that were large weigh, too
    small.project(lab.tenant, 0)

    rows = dict(lab.views().rows(generation, "0"))
    assert {row["events"] for row in rows.values()} == {2}
    assert len(rows) == 30
    checkpoint = projector.checkpoint(generation, 0)
    assert (checkpoint.position, checkpoint.tally.rows, checkpoint.parked) == (60, 30, 0)


def test_an_event_that_changes_more_than_a_transaction_takes_stops_its_stream_and_no_other(lab):
    ours, other = streams_together(2)
    lab.indexer().index([lab.append(stream) for stream in (other, ours, other)])
    view = Weighty({ours: {"text": "x" * 300_000}}, rows=20)
    projector, generation = lab.projector(views=[view]), Generation("per-stream", 1, lab.tenant)

    projector.project(lab.tenant, 0)

    assert [parked.stream for parked in Redrive(projector).parked(generation, 0)] == [ours]
    assert {row["events"] for _, row in lab.views().rows(generation, "0")} == {2}
    assert projector.checkpoint(generation, 0).position == 3


def test_what_keeps_one_view_from_moving_keeps_no_other(lab):
    lab.indexer().index([lab.append("s/1", 2)])

    def untold(_event: Any) -> None:
        raise Unavailable("bus_unavailable", "The bus does not answer.")

    with pytest.raises(Unavailable, match="bus_unavailable"):
        lab.projector(effects={"every": untold}).project(lab.tenant, partition_of("s/1"))

    lab.check_views_of("per-stream", 1)
    lab.project()
    lab.check_views()
