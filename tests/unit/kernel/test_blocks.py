"""A stream's index: watermarks, blocks of every level, and places in the log."""

import random

import pytest

from holdfast.log.blocks import (
    COMMITS_MAX,
    EVENTS_CLOSE,
    FANOUT,
    NO_COMMITS,
    Block,
    Place,
    Summary,
    Watermark,
    advanced,
    block_of,
    block_row,
    places_from,
    watermark_of,
    watermark_row,
)


def commits(count: int, events: int, seed: int = 1) -> list[Summary]:
    noise = random.Random(seed)
    made, leaf, position = [], 10, 1_000
    for number in range(count):
        leaf += noise.randrange(1, 9)
        position += events + noise.randrange(50)
        earliest = 1_000_000 + number * 1_000 - noise.randrange(40_000)
        made.append(
            Summary(
                first_version=number * events + 1,
                events=events,
                stored_bytes=100,
                earliest=earliest,
                latest=earliest + noise.randrange(5_000),
                recorded_at=2_000_000 + number,
                hash=bytes([number % 256]) * 32,
                leaf=leaf,
                last_position=position,
            )
        )
    return made


def indexed(summaries: list[Summary]) -> tuple[Watermark, list[Block]]:
    watermark, blocks = NO_COMMITS, list[Block]()
    for summary in summaries:
        watermark, closed = advanced(watermark, summary)
        blocks += closed
    return watermark, blocks


def test_a_block_closes_after_so_many_commits():
    watermark, blocks = indexed(commits(COMMITS_MAX - 1, 1))
    assert blocks == []
    assert watermark.open_from == 1

    watermark, blocks = indexed(commits(COMMITS_MAX, 1))
    assert [(block.level, block.first_version, block.version) for block in blocks] == [(0, 1, COMMITS_MAX)]
    assert watermark.open_from == COMMITS_MAX + 1
    assert watermark.places == ()


def test_a_block_closes_with_the_commit_that_brings_its_events_to_the_bound():
    _, blocks = indexed(commits(6, EVENTS_CLOSE // 2 - 1))

    assert [(block.first_version, block.version) for block in blocks] == [(1, 765), (766, 1530)]


@pytest.mark.parametrize("count", [FANOUT - 1, FANOUT, FANOUT + 1, FANOUT * FANOUT, FANOUT * FANOUT + FANOUT + 3])
def test_blocks_of_every_level_lie_side_by_side_without_gaps(count):
    watermark, blocks = indexed(commits(count, EVENTS_CLOSE))

    for level in range(len(watermark.levels) - 1):
        own = [block for block in blocks if block.level == level]
        assert [block.first_version for block in own] == [1, *(block.version + 1 for block in own[:-1])]
        assert len(own) == count // FANOUT**level
    assert [level.count for level in watermark.levels[1:]] == [
        count // FANOUT**level % FANOUT for level in range(len(watermark.levels) - 1)
    ]


def test_a_block_says_what_its_commits_say():
    made = commits(FANOUT * 2, EVENTS_CLOSE)
    _, blocks = indexed(made)

    for block in blocks:
        own = [each for each in made if block.first_version <= each.first_version <= block.version]
        so_far = [each for each in made if each.first_version <= block.version]
        assert block.earliest == min(each.earliest for each in own)
        assert block.latest == max(each.latest for each in so_far)
        assert block.recorded_at == own[-1].recorded_at
        assert block.stored_bytes == 100 * len(so_far)


@pytest.mark.parametrize("count", [1, 5, COMMITS_MAX, COMMITS_MAX * 3 + 7])
def test_every_commit_has_its_place_in_the_log(count):
    made = commits(count, 2)
    watermark, blocks = indexed(made)

    found = [place for block in blocks if block.level == 0 for place in places_from(block.first_version, block.places)]
    found += places_from(watermark.open_from, watermark.places)
    assert found == [Place(each.first_version, each.events, each.leaf) for each in made]


def test_rows_give_back_what_was_put_into_them():
    watermark, blocks = indexed(commits(FANOUT + 2, EVENTS_CLOSE))

    assert watermark_of(watermark_row(watermark)) == watermark
    assert watermark_of(None) == NO_COMMITS
    for block in blocks:
        assert block_of({"sk": f"{block.first_version:016d}", **block_row(block)}, block.level) == block


def test_a_watermark_stays_within_one_write_unit_however_many_commits_are_open():
    """Names of 60 characters, leaves in the millions: what a busy log has."""
    summaries = [
        Summary(version, 1, 100, 10**15 + version, 10**15 + version, 10**15 + version, b"h" * 32, leaf, 10**9)
        for version, leaf in ((n + 1, 5_000_000 + n * 700) for n in range(COMMITS_MAX - 1))
    ]
    watermark, _ = indexed(summaries)
    row = watermark_row(watermark)
    numbers = 5 * 9
    size = numbers + len(row["hash"]) + len(row["open"]) + len(row["places"]) + sum(map(len, row)) + 2 + 60 + 16 + 4

    assert size <= 1_024
