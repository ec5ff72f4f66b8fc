"""The rest of `./holdfast demo audit`: a search, an erasure, and the proof of everything before and after it."""

import itertools
import time
from typing import Final
from uuid import uuid4

import msgspec

from holdfast_cli.audit_verify import is_local, verify
from holdfast_cli.terminal import say, visible
from holdfast_client import Event, Holdfast

FOUND_MAX: Final = 3
"""How many found events are shown."""
ADDRESS: Final = "12 Elm Street"
GONE_SECONDS_MAX: Final = 70.0
"""How long another instance of the service may still open what was sealed: it keeps a key for up to a minute."""


class More(msgspec.Struct, frozen=True):
    """What came of it."""

    found: int
    erased: bool
    """The content is gone from what is read, and was there before."""
    verified: bool
    """False where nothing could be verified: the service is elsewhere, and its key must be given by hand."""

    @property
    def is_true(self) -> bool:
        return self.found > 0 and self.erased


def shown(holdfast: Holdfast, stream: str, version: int) -> More:
    """Search what was imported into *stream*, erase a person, and verify the whole history."""
    found = _search(holdfast, stream, version)
    erased = _erase(holdfast)
    return More(found, erased, _verify())


def _search(holdfast: Holdfast, stream: str, version: int) -> int:
    newest = next(iter(holdfast.audit.events(stream, version - 1)))
    say(f"4. Search: what {visible(newest.actor or '')} did, newest first, from a read model that has seen the import.")
    search = holdfast.audit.search(actor=newest.actor, order="desc", wait_for=(stream, version))
    found = list(itertools.islice(search, FOUND_MAX))
    for each in found:
        told = f"{each.time:%Y-%m-%d %H:%M}  {visible(each.type)}  {visible(each.subject or '')}"
        say(f"   {each.stream} version {each.version:>6}  {told}")
    return len(found)


def _erase(holdfast: Holdfast) -> bool:
    person = f"demo-{uuid4().hex[:8]}"
    stream = f"demo/people/{person}"
    say(f"5. Erase: a person moves to {ADDRESS}; that is sealed under a key of their own, and the key is destroyed.")
    moved = Event(type="person.moved", data={"street": ADDRESS}, extensions={"shredkey": person})
    holdfast.audit.append(stream, [moved], expected=None)
    before = holdfast.audit.state(stream).state
    erased = holdfast.audit.erase(person, "They asked for it.")
    until = time.monotonic() + GONE_SECONDS_MAX
    while not (after := holdfast.audit.state(stream)).events_erased and time.monotonic() < until:
        time.sleep(1)
    say(f"   before {before}, after {after.state}; {after.events_erased} event stays without its data.")
    if erased.final_at:
        say(f"   Backups could bring the key back until {erased.final_at:%Y-%m-%d}; after that, nothing can.")
    return before == {"street": ADDRESS} and after.state == {} and after.events_erased == 1


def _verify() -> bool:
    say("6. Verify: every event, chain and root recomputed here, up to an anchor that covers the erasure as well.")
    if not is_local():
        say("   Not here: pin the service's key, and then: ./holdfast audit verify --key FILE")
        return False
    verify(None)  # tells what it proves; what is broken ends the demo here
    return True
