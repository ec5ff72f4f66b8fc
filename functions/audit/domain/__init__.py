"""
What is true of an audit trail: pure.

    appending  what an append must say, and what its refusal tells
    paging     pages of a stream's events
    states     what may be asked of states, and what changed between two
    views      the read models, as functions of events
    searching  which rows of them a search reads, and where a page ends
    listing    pages of those that are kept by partition
    pace       how fast a rebuild goes
    intake     what other services tell
    access     that somebody read something
    subjects   what is done about data subjects
"""

from functions.audit.domain.access import (
    RECORD_READS,
    SETTINGS_STREAM,
    Read,
    event_of,
    stream_of,
    switched_event,
)
from functions.audit.domain.appending import (
    APPENDS_MAX,
    VERSION_MAX,
    AppendRequest,
    Author,
    CheckedAppend,
    CheckedEvent,
    Writing,
    expected_in,
    understand_append,
    understand_commit,
    understand_expected,
    winner_facts,
)
from functions.audit.domain.intake import ACTOR, Taken, stream_for, understand_message, understand_taken
from functions.audit.domain.listing import Bounds, Count, Listed, StreamFacts, days_within, merged, streams_within
from functions.audit.domain.pace import Pace, pace_of
from functions.audit.domain.paging import PAGE_BYTES_MAX, Page, page_of, travelling_bytes
from functions.audit.domain.searching import (
    Bookmark,
    Rows,
    Search,
    SearchPage,
    Span,
    check_search,
    check_span,
    find,
)
from functions.audit.domain.states import check_version, merge_patch, reducers, stream_not_found
from functions.audit.domain.subjects import Act, decided, subject_event, subject_told, tells_of_erasure
from functions.audit.domain.views import ACTIVITY, EVENTS, STREAMS, VIEWS, EventRow

__all__ = [
    "ACTIVITY",
    "ACTOR",
    "APPENDS_MAX",
    "EVENTS",
    "PAGE_BYTES_MAX",
    "RECORD_READS",
    "SETTINGS_STREAM",
    "STREAMS",
    "VERSION_MAX",
    "VIEWS",
    "Act",
    "AppendRequest",
    "Author",
    "Bookmark",
    "Bounds",
    "CheckedAppend",
    "CheckedEvent",
    "Count",
    "EventRow",
    "Listed",
    "Pace",
    "Page",
    "Read",
    "Rows",
    "Search",
    "SearchPage",
    "Span",
    "StreamFacts",
    "Taken",
    "Writing",
    "check_search",
    "check_span",
    "check_version",
    "days_within",
    "decided",
    "event_of",
    "expected_in",
    "find",
    "merge_patch",
    "merged",
    "pace_of",
    "page_of",
    "reducers",
    "stream_for",
    "stream_not_found",
    "stream_of",
    "streams_within",
    "subject_event",
    "subject_told",
    "switched_event",
    "tells_of_erasure",
    "travelling_bytes",
    "understand_append",
    "understand_commit",
    "understand_expected",
    "understand_message",
    "understand_taken",
    "winner_facts",
]
