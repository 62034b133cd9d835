"""The values of records: what is encoded is read again, and anything else is unreadable, whatever it is."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard import ServiceUnavailable
from fastapi_guard.stores.protocol import Record
from fastapi_guard.stores.values import Count, RecordForm, UnreadableRecord, readable


@dataclass(frozen=True)
class Inner:
    """A part of a record."""

    tries: Count


@dataclass(frozen=True)
class Every:
    """A field of each type."""

    text: str
    number: int
    moment: float
    flag: bool
    raw: bytes
    names: list[str]
    pair: Sequence[int]
    kind: Literal["a", "b"]
    claims: Mapping[str, Any]
    more: dict[str, Any]
    inner: Inner
    perhaps: str | None = None


FORM = RecordForm(Every, "a test")
VALUE = Every(
    "é\ud800", -3, 1.5, True, b"\xfb\xff", ["x"], (1, 2), "a", {"sub": {"deep": [1]}}, {}, Inner(0), perhaps="there"
)
MEMBERS: dict[str, Any] = json.loads(FORM.encoded(VALUE))
# Values that are of no type of these, or of the type of another field.
WRONG: dict[str, list[Any]] = {
    "text": [None, 1, True, [], {}],
    "number": [None, "1", True, 1.0, []],
    "moment": [None, "1", True, [], 10**400, -(10**400), 253_402_300_800],
    "flag": [None, 0, 1, "true"],
    "raw": [None, 1, "-_8=", "+/8", "-_9", "é", "-_8\n", "A", [], {}],
    "names": [None, "x", {"x": 1}, [1], [None], [["x"]]],
    "pair": [None, 1, "12", {}, ["1"], [True]],
    "kind": [None, "c", "", 1, ["a"], {}],
    "claims": [None, [], "x", 1],
    "more": [None, [], "x", 1],
    "inner": [None, [], "x", 1, {}, {"tries": -1}, {"tries": True}, {"tries": 1, "more": 1}],
    "perhaps": [1, True, [], {}],
}


def unreadable(value: bytes | str) -> bool:
    """Return whether a value is unreadable; nothing else is raised, and nothing of the value is known from it."""
    try:
        FORM.read(value)
    except UnreadableRecord as error:
        seen = (error.status_code, error.reason, error.__cause__, error.__context__)
        return seen == (503, "unreadable_record", None, None)
    return False


def test_what_was_encoded() -> None:
    """A field of each type is read as it was encoded, from bytes and from text."""
    encoded = FORM.encoded(VALUE)
    assert (FORM.read(encoded), FORM.read(encoded.decode())) == (VALUE, VALUE)
    assert FORM.read_or_none(Record("key", encoded)) == VALUE
    assert FORM.read_or_none(None) is None
    inner = RecordForm(Inner, "a part")
    assert (inner.part_or_none(asdict(Inner(2))), inner.part_or_none({})) == (Inner(2), None)


def test_absent() -> None:
    """A field that may be absent is null in JSON."""
    assert FORM.read(json.dumps({**MEMBERS, "perhaps": None})).perhaps is None


@pytest.mark.parametrize("name", [field.name for field in fields(Every)])
def test_a_member(name: str) -> None:
    """A record is unreadable without one of its members, one with a default too, and with one of another type."""
    assert unreadable(json.dumps({member: value for member, value in MEMBERS.items() if member != name}))
    assert [value for value in WRONG[name] if not unreadable(json.dumps({**MEMBERS, name: value}))] == []


def test_a_member_more() -> None:
    """A record of a later version, with more members, is unreadable."""
    assert unreadable(json.dumps({**MEMBERS, "later": 1}))


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff", b"null", b"1", b'"text"', b"[]", b"{}", b"NaN", b"[" * 100_000, b"9" * 5000],
    ids=lambda value: repr(value)[:12],
)
def test_a_value(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever else it is, it is unreadable; the log names the kind of record, once."""
    assert unreadable(value)
    assert caplog.record_tuples == [("fastapi_guard", logging.ERROR, "the record of a test cannot be read")]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite(number: str) -> None:
    """A number that is not finite is unreadable wherever it is, and is not encoded."""
    text = json.dumps({**MEMBERS, "claims": {"n": "here"}}).replace('"here"', number)
    assert unreadable(text)
    with pytest.raises(ValueError, match="not JSON compliant"):
        FORM.encoded(Every(**{**vars(VALUE), "claims": {"n": float(number)}}))


def test_what_is_not_json() -> None:
    """A value in a mapping that is not JSON is not encoded."""
    with pytest.raises(TypeError, match="set is not JSON"):
        FORM.encoded(Every(**{**vars(VALUE), "claims": {"n": {1}}}))


def test_another_place() -> None:
    """A record that does not belong where it is found is unreadable."""
    encoded = FORM.encoded(VALUE)
    assert FORM.read(encoded, where=lambda value: value.number < 0) == VALUE
    with pytest.raises(ServiceUnavailable):
        FORM.read(encoded, where=lambda value: value.number > 0)


def test_several_records() -> None:
    """Of several records those that can be read are returned."""
    records = [Record("a", b"null"), Record("b", FORM.encoded(VALUE))]
    assert readable(records, lambda record: FORM.read(record.value)) == [VALUE]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(st.sampled_from(sorted(MEMBERS)), JSON)
def test_any_member(name: str, value: Any) -> None:
    """Any JSON in place of a member is read as it is, or is unreadable: it never becomes another value."""
    text = json.dumps({**MEMBERS, name: value})
    if not unreadable(text):
        assert json.loads(FORM.encoded(FORM.read(text))) == {**MEMBERS, name: value}


@given(JSON.map(json.dumps).map(str.encode) | st.binary())
def test_any_value(value: bytes) -> None:
    """Any JSON, and any bytes, in place of a record is unreadable."""
    assert unreadable(value)
