"""What was sealed comes back under its own key and context, and nothing else does: not one bit may differ."""

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.envelope import FORM, KEY_BYTES, NONCE_BYTES, DataKey, Forged, _box, encode_context, seal, unseal
from tests.soak import examples

CONTENT_BYTES_MAX = 40
"""Every bit of a box is tried; longer content has no bits of another kind."""

contents = st.binary(max_size=CONTENT_BYTES_MAX)
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES).map(DataKey)
nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)
texts = st.text(max_size=5)
contexts = st.dictionaries(texts, texts, max_size=3)


def is_refused(box: bytes, key: DataKey, context: dict[str, str]) -> bool:
    try:
        unseal(box, key, context)
    except Forged:
        return True
    return False


@given(st.binary(max_size=2_000), keys, contexts)
@settings(max_examples=examples(100, soak=2_000), deadline=None)
def test_what_was_sealed_comes_back(content: bytes, key: DataKey, context: dict[str, str]):
    assert unseal(seal(content, key, context), key, context) == content


@given(contents, keys, contexts, nonces)
@settings(max_examples=examples(20, soak=500), deadline=None)
def test_every_bit_counts(content: bytes, key: DataKey, context: dict[str, str], nonce: bytes):
    box = _box(content, key, context, nonce)

    for bit in range(len(box) * 8):
        changed = bytearray(box)
        changed[bit // 8] ^= 1 << bit % 8
        assert is_refused(bytes(changed), key, context)


@given(contents, keys, contexts, nonces, st.binary(min_size=1, max_size=20))
@settings(max_examples=examples(20, soak=500), deadline=None)
def test_nothing_shorter_or_longer_opens(
    content: bytes, key: DataKey, context: dict[str, str], nonce: bytes, more: bytes
):
    box = _box(content, key, context, nonce)

    assert all(is_refused(box[:end], key, context) for end in range(len(box)))
    assert is_refused(box + more, key, context)
    assert is_refused(more + box, key, context)
    assert is_refused(FORM + more + box[1:], key, context)


@given(contents, keys, keys, contexts, contexts)
@settings(max_examples=examples(100, soak=2_000), deadline=None)
def test_a_box_opens_under_its_own_key_and_context_only(
    content: bytes, key: DataKey, other_key: DataKey, context: dict[str, str], other: dict[str, str]
):
    box = seal(content, key, context)

    assert is_refused(box, other_key, context) == (other_key != key)
    assert is_refused(box, key, other) == (other != context)


@given(contexts, contexts)
@settings(max_examples=examples(300, soak=10_000), deadline=None)
def test_no_two_contexts_are_written_alike(one: dict[str, str], other: dict[str, str]):
    assert (encode_context(one) == encode_context(other)) == (one == other)


@given(st.lists(texts, min_size=4, max_size=4))
@settings(max_examples=examples(300, soak=10_000), deadline=None)
def test_where_one_part_ends_is_a_part_of_the_context(parts: list[str]):
    name, value, other_name, other_value = parts
    one = {name: value + other_name + other_value}
    other = {name + value: other_name + other_value}

    assert (encode_context(one) == encode_context(other)) == (one == other)
