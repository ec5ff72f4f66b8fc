"""
The archive: commits leave their table for objects, and are read as if they had not.

A table is for what is asked often, and commits are asked seldom once they are old. After 90 days they are moved, a
range of a log partition at a time, into objects that are written once and proven against the log before anything is
removed. Nothing is ever removed by its age alone, and never a stream's newest commit: it is the boundary that writers
stand on.

    format      an object's bytes
    contents    what an object holds, proven
    rows        how commits are found in objects
    partition   moving one range
    archiver    moving all that is old enough, for a bounded time
    reader      reading by stream and by log
"""

from holdfast.archive.archiver import HOT_DAYS, Archiver, Report, Stuck
from holdfast.archive.reader import ArchiveReader

__all__ = ["HOT_DAYS", "ArchiveReader", "Archiver", "Report", "Stuck"]
