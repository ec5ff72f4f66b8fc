import base64
import re

import msgspec
import pytest

from holdfast.cursors import CURSOR_CHARACTERS_MAX, Cursors
from holdfast.errors import Invalid

CURSORS = Cursors(b"k" * 32)
QUERY = {"actor": "ann", "order": "desc"}


class Search(msgspec.Struct):
    order: str
    actor: str


def is_refused(tenant: str, query: object, cursor: str, cursors: Cursors = CURSORS) -> bool:
    with pytest.raises(Invalid) as caught:
        cursors.open(tenant, query, cursor)
    return caught.value.code == "invalid_cursor"


def test_a_cursor_gives_back_its_position():
    assert CURSORS.open("acme", QUERY, CURSORS.seal("acme", QUERY, ["2026-01", 7, None])) == ["2026-01", 7, None]


def test_a_cursor_needs_no_escaping_in_a_url():
    assert re.fullmatch(r"[A-Za-z0-9_-]+", CURSORS.seal("acme", QUERY, {"a": list(range(50))}))


def test_a_cursor_is_for_one_tenant_one_query_and_one_key():
    cursor = CURSORS.seal("acme", QUERY, 7)

    assert is_refused("acm", QUERY, cursor)
    assert is_refused("acme", {**QUERY, "actor": "bob"}, cursor)
    assert is_refused("acme", {}, cursor)
    assert is_refused("acme", QUERY, cursor, Cursors(b"K" * 32))


def test_the_same_query_written_otherwise_is_the_same_query():
    cursor = CURSORS.seal("acme", QUERY, 7)

    assert CURSORS.open("acme", {"order": "desc", "actor": "ann"}, cursor) == 7
    assert CURSORS.open("acme", Search(order="desc", actor="ann"), cursor) == 7


def test_a_tenant_cannot_lend_its_letters_to_the_query():
    assert is_refused("a", "bc", CURSORS.seal("ab", "c", 1))


@pytest.mark.parametrize("junk", ["", "=", "AQ", "é", "\ud800", "a b", "A" * 44, "A" * 3_000, "\x00"])
def test_junk_is_no_cursor(junk: str):
    assert is_refused("acme", QUERY, junk)


def test_padding_or_another_alphabet_is_another_spelling_and_refused():
    cursor = next(c for n in range(99) if "-" in (c := CURSORS.seal("acme", QUERY, n)) and len(c) % 4)

    assert is_refused("acme", QUERY, cursor + "=" * (-len(cursor) % 4))
    assert is_refused("acme", QUERY, cursor.replace("-", "+"))


def test_a_position_that_would_not_fit_a_url_is_not_sealed():
    with pytest.raises(ValueError, match=str(CURSOR_CHARACTERS_MAX)):
        CURSORS.seal("acme", QUERY, "x" * 2_000)


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="32"):
        Cursors(b"k" * 31)


def test_a_hidden_cursor_gives_back_its_position_and_shows_nothing_of_it():
    cursor = CURSORS.seal("acme", QUERY, {"pk": "S#rival#secret"}, hidden=True)

    assert CURSORS.open("acme", QUERY, cursor) == {"pk": "S#rival#secret"}
    assert b"secret" not in base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    assert cursor != CURSORS.seal("acme", QUERY, {"pk": "S#rival#secret"}, hidden=True)


def test_a_hidden_cursor_is_for_one_tenant_one_query_and_one_key_and_cannot_be_altered():
    cursor = CURSORS.seal("acme", QUERY, 7, hidden=True)
    sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))

    assert is_refused("acm", QUERY, cursor)
    assert is_refused("acme", {}, cursor)
    assert is_refused("acme", QUERY, cursor, Cursors(b"K" * 32))
    for at in range(len(sealed)):
        other = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        assert is_refused("acme", QUERY, base64.urlsafe_b64encode(other).rstrip(b"=").decode()), at
    for end in range(len(sealed)):
        assert is_refused("acme", QUERY, base64.urlsafe_b64encode(sealed[:end]).rstrip(b"=").decode()), end
