"""Names of records: bounded, and no two alike."""

from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard.stores.names import MAX_NAME_BYTES, HashedName, decode_name, encode_name

TEXTS = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(
    ["", "\x00", "\x00abc", "x" * MAX_NAME_BYTES, "x" * (MAX_NAME_BYTES + 1), "\U0001f511" * 300, "\ud800" * 2000]
)


@given(TEXTS)
def test_a_name_is_bounded_and_comes_back(text: str) -> None:
    """A name has a bounded length; it is read back as it was, or as a hash that is stored as the same bytes again."""
    stored = encode_name(text)
    assert len(stored) <= MAX_NAME_BYTES
    read = decode_name(stored)
    assert encode_name(read) == stored
    assert read == text or isinstance(read, HashedName)


@given(TEXTS, TEXTS)
def test_two_names_are_never_one(one: str, other: str) -> None:
    """Different texts are different names, also a text that looks like the hash of another one."""
    assert (encode_name(one) == encode_name(other)) == (one == other)
    hashed = decode_name(encode_name("x" * 5000))
    assert encode_name(str(hashed)) != encode_name("x" * 5000)
    assert encode_name("\x00" + str(hashed)) != encode_name("x" * 5000)
