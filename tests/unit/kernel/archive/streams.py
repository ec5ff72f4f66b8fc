"""Streams that are written to be archived, and what still stands of them in the table."""

from tests.archive_lab import ArchiveLab


def written(lab: ArchiveLab, *sizes: int, stream: str = "s/1") -> ArchiveLab:
    for size in sizes:
        lab.append(stream, size)
    lab.index()
    return lab


def standing(lab: ArchiveLab, stream: str = "s/1") -> list[int]:
    return [row["sk"] for row in lab.hot(stream)]
