"""Routes for those who check for themselves: signed anchors, the keys they are signed with, and the log as export."""

from typing import Annotated

import msgspec

from functions.audit import adapters
from functions.audit.app.announcing import tell_of_damage
from functions.audit.app.door import STORE_ERRORS, STORE_UNAVAILABLE, app
from functions.audit.app.log import partition_named
from functions.audit.app.recording import recorded
from functions.audit.service import Exports
from holdfast.anchors import TenantAnchor, public_keys
from holdfast.errors import NotFound
from holdfast.http import Caller
from holdfast.http.faults import WHOLE_NUMBER

SIGNER_ERRORS = {**STORE_ERRORS, 503: ["signer_unavailable", *STORE_UNAVAILABLE]}
ANCHOR_ERRORS = {**STORE_ERRORS, 404: ["anchor_not_found"]}
EXPORT_ERRORS = {
    **STORE_ERRORS,
    400: ["invalid_cursor", "invalid_range"],
    404: ["partition_not_found"],
    503: [*STORE_UNAVAILABLE, "not_in_log_yet", "cursor_key_unknown", "not_recorded"],
}


class ExportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    partition: str
    """Its number, as in the routes of the log."""
    from_leaf: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0
    """The first commit to export; the roots of those before it come first."""
    cursor: str | None = None


class ExportAnswer(msgspec.Struct, frozen=True):
    lines: list[msgspec.Raw]
    cursor: str | None


class KeysAnswer(msgspec.Struct, frozen=True):
    keys: list[dict[str, str]]
    """JSON Web Keys (RFC 7517)."""


@app.get("/v1/anchors/latest", scope="audit:verify", raises=ANCHOR_ERRORS)
def get_latest_anchor(caller: Caller) -> TenantAnchor:
    """Answer the newest signed anchor, with this tenant's heads in it."""
    anchors = adapters.anchors()
    latest = anchors.latest()
    if latest is None:
        raise NotFound("anchor_not_found", "Nothing has been signed yet; the first commit will be, within a minute.")
    return anchors.for_tenant(latest, caller.tenant)


@app.get("/v1/anchors/{seq}", scope="audit:verify", raises=ANCHOR_ERRORS)
def get_anchor(caller: Caller, seq: str) -> TenantAnchor:
    """Answer one signed anchor by its number, with this tenant's heads in it."""
    if not WHOLE_NUMBER.fullmatch(seq):
        raise NotFound("anchor_not_found", "Anchors are numbered from 1.")
    anchors = adapters.anchors()
    return anchors.for_tenant(anchors.get(int(seq)), caller.tenant)


@app.get("/v1/keys", scope="audit:verify", raises=SIGNER_ERRORS)
def get_keys(caller: Caller) -> KeysAnswer:  # noqa: ARG001 - the same for every tenant, and for none without a token
    """
    Tell the keys of anchors: the one that they are signed with now, then those that they were signed with before.

    Whoever checks an anchor pins its key, and does not ask for it.
    """
    return KeysAnswer(**public_keys(adapters.anchors().named_keys()))


@app.get("/v1/export", scope="audit:verify", raises=EXPORT_ERRORS)
@recorded("export")
def get_export(caller: Caller, query: ExportQuery) -> ExportAnswer:
    """Export a partition of the log with all its events, a page at a time."""
    exported = exports(caller).page(partition_named(query.partition), query.from_leaf, query.cursor)
    return ExportAnswer(exported.lines, exported.cursor)


def exports(caller: Caller) -> Exports:
    lines = adapters.lines_of(caller.tenant, lambda error: tell_of_damage(error, "GET /v1/export", caller.tenant))
    return Exports(caller.tenant, lines, adapters.cursors)
