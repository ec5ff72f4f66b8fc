import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.cursors import Cursors
from holdfast.errors import Invalid

CURSORS = Cursors(bytes(range(32)))
ALPHABET = string.ascii_letters + string.digits + "-_"

TENANTS = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=40)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=8,
)
QUERIES = st.dictionaries(TEXT, TEXT, max_size=3)


@given(TENANTS, QUERIES, VALUES)
def test_every_position_comes_back_to_its_tenant_and_query(tenant: str, query: object, position: object):
    assert CURSORS.open(tenant, query, CURSORS.seal(tenant, query, position)) == position


@given(TENANTS, TENANTS, QUERIES, QUERIES, VALUES)
def test_no_position_comes_to_another(tenant: str, other: str, query: object, another: object, position: object):
    assume((tenant, query) != (other, another))

    with pytest.raises(Invalid):
        CURSORS.open(other, another, CURSORS.seal(tenant, query, position))


@given(TENANTS, QUERIES, VALUES, st.data())
def test_no_character_of_a_cursor_can_be_changed(tenant: str, query: object, position: object, data: st.DataObject):
    cursor = CURSORS.seal(tenant, query, position)
    at = data.draw(st.integers(0, len(cursor) - 1))
    put = data.draw(st.sampled_from(ALPHABET).filter(lambda character: character != cursor[at]))

    for altered in (
        cursor[:at] + put + cursor[at + 1 :],
        cursor[:at] + cursor[at + 1 :],
        cursor[:at] + put + cursor[at:],
    ):
        with pytest.raises(Invalid):
            CURSORS.open(tenant, query, altered)


@given(st.text(max_size=80) | st.text(ALPHABET, max_size=80))
def test_whatever_is_sent_as_a_cursor_is_only_ever_invalid(junk: str):
    with pytest.raises(Invalid):
        CURSORS.open("acme", {}, junk)
