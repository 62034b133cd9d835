import json
import re
import string
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_guard.jwt import compact
from fastapi_guard.jwt.compact import (
    MAX_DEPTH,
    MAX_HEADER_BYTES,
    MAX_KID_LENGTH,
    Header,
    MalformedToken,
    decode_base64url,
    decode_header,
    decode_object,
    encode_base64url,
    encode_object,
    split,
)
from support.tokens import base64url

ALPHABET = string.ascii_letters + string.digits + "-_"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


def header(members: object) -> bytes:
    """Return a header as a token has it."""
    raw = members if isinstance(members, bytes) else json.dumps(members).encode()
    return base64url(raw).encode()


def test_split() -> None:
    """A token is its signing input, and three parts that stay encoded."""
    assert split(b"aa.bb.cc") == (b"aa.bb", b"aa", b"bb", b"cc")


def test_split_keeps_empty_parts() -> None:
    """An empty part is left to its decoder."""
    assert split(b"..") == (b".", b"", b"", b"")


@pytest.mark.parametrize(
    "token",
    [b"", b"a", b"a.b", b"a.b.c.d", b"a.b.c.d.e", b".....", pytest.param(b"." * 10_000, id="dots")],
)
def test_split_refuses(token: bytes) -> None:
    """Anything but three parts is refused undecoded, the five parts of a JWE too (A.5)."""
    with pytest.raises(MalformedToken, match=r"^not_three_parts$"):
        split(token)


@given(st.binary() | st.lists(st.binary(), min_size=3, max_size=3).map(b".".join))
def test_split_is_total(token: bytes) -> None:
    """Any bytes split, or are refused with MalformedToken."""
    try:
        signing_input, head, payload, signature = split(token)
    except MalformedToken:
        return
    assert signing_input + b"." + signature == token
    assert head + b"." + payload == signing_input


@given(st.binary())
@example(b"\xfb\xff\xfe")
def test_base64url_round_trip(raw: bytes) -> None:
    """The encoding of RFC 7515 2 is decoded."""
    assert decode_base64url(base64url(raw).encode()) == raw


@pytest.mark.parametrize(
    "segment",
    [
        b"YQ==",  # padding
        b"YWI=",
        b"YWJj====",
        b"=",
        b"YQ =",
        b"YW Jj",
        b" YWJj",
        b"YWJj\n",
        b"YWJj\r\n",
        b"YW\tJj",
        b"YW\x0bJj",
        b"YW\x00J",
        b"-+__",  # the standard alphabet
        b"_/__",
        b"++//",
        b"YWJ!",
        b"YWJ.",
        b"YR",  # stray bits: 'Q' and 'R' decode alike
        b"YWJ",  # "YWI" is the one spelling
        b"A",  # no byte has six bits
        b"AAAAA",
        b"\xff\xfe",
        b"YWJj\xc3\xa9aa",
    ],
)
def test_base64url_has_one_spelling(segment: bytes) -> None:
    """Padding, white space, `+` and `/`, stray bits and impossible lengths are refused (A.6)."""
    with pytest.raises(MalformedToken, match=r"^base64url$"):
        decode_base64url(segment)


@given(st.binary(max_size=12) | st.text(ALPHABET, max_size=9).map(str.encode))
def test_base64url_is_strict(segment: bytes) -> None:
    """Decoded text encodes to the same: no value has a second spelling (A.6)."""
    try:
        raw = decode_base64url(segment)
    except MalformedToken:
        # Python's own decoder agrees, or would lose something on the way back.
        try:
            again = base64url(urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))).encode()
        except ValueError:
            return
        assert again != segment
        return
    assert base64url(raw).encode() == segment


def test_header() -> None:
    """The members that a verification looks at are read, unknown ones are ignored (B.8)."""
    segment = header({"alg": "ES256", "kid": "1", "typ": "JWT", "x": 1, "jwk": {}, "jku": "https://evil.example"})
    assert decode_header(segment) == Header("ES256", "1", "JWT")


def test_header_of_alg_alone() -> None:
    """Only `alg` has to be there."""
    assert decode_header(header({"alg": "ES256"})) == Header("ES256", None, None)


def test_header_with_certificates() -> None:
    """An x5c chain of ordinary length is accepted: 8 KiB of header pass (B.8)."""
    members = {"alg": "RS256", "x5c": ["M" * 2700, "I" * 2700, "I" * 2700]}
    assert len(json.dumps(members)) > 8 * 1024 - 100
    assert decode_header(header(members)).alg == "RS256"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (b"", "json"),
        (b"{", "json"),
        (b"null", "not_an_object"),
        (b"[]", "not_an_object"),
        (b'"a"', "not_an_object"),
        (b"1", "not_an_object"),
        (b'{"alg":"ES256"} x', "json"),
        (b'{"alg":"ES256","alg":"none"}', "duplicate_member"),
        (b'{"alg":"none","alg":"ES256"}', "duplicate_member"),
        (b'{"alg":"ES256","kid":"a","kid":"b"}', "duplicate_member"),
        (b'{"alg":"ES256","\\u0061lg":"none"}', "duplicate_member"),
        (b'{"alg":"ES256","x":{"a":1,"a":2}}', "duplicate_member"),
        ({}, "header_type"),
        ({"alg": None}, "header_type"),
        ({"alg": 1}, "header_type"),
        ({"alg": ["ES256"]}, "header_type"),
        ({"alg": {"ES256": 1}}, "header_type"),
        ({"alg": True}, "header_type"),
        ({"alg": "ES256", "kid": None}, "header_type"),
        ({"alg": "ES256", "kid": 1}, "header_type"),
        ({"alg": "ES256", "kid": ["1"]}, "header_type"),
        ({"alg": "ES256", "kid": {}}, "header_type"),
        ({"alg": "ES256", "kid": False}, "header_type"),
        ({"alg": "ES256", "kid": "k" * (MAX_KID_LENGTH + 1)}, "oversized_kid"),
        ({"alg": "ES256", "typ": None}, "header_type"),
        ({"alg": "ES256", "typ": 1}, "header_type"),
        ({"alg": "ES256", "typ": ["JWT"]}, "header_type"),
        ({"alg": "ES256", "crit": ["exp"], "exp": 1}, "critical_header"),
        ({"alg": "ES256", "crit": []}, "critical_header"),
        ({"alg": "ES256", "crit": None}, "critical_header"),
        ({"alg": "ES256", "crit": "exp"}, "critical_header"),
        ({"alg": "ES256", "crit": 1}, "critical_header"),
        ({"alg": "ES256", "crit": [1]}, "critical_header"),
        ({"alg": "ES256", "crit": ["b64"], "b64": False}, "critical_header"),
        ({"alg": "ES256", "b64": True}, "critical_header"),
        ({"alg": "ES256", "b64": False}, "critical_header"),
        ({"alg": "ES256", "b64": None}, "critical_header"),
        (b'{"alg":"ES256","x":NaN}', "number"),
        (b'{"alg":"ES256","x":1e999}', "number"),
        ('{"alg":"ES256"}'.encode("utf-16"), "json"),
        ('{"alg":"ES256"}'.encode("utf-16-le"), "json"),
        ('{"alg":"ES256"}'.encode("utf-16-be"), "json"),
        ('{"alg":"ES256"}'.encode("utf-32"), "json"),
        (b'\xef\xbb\xbf{"alg":"ES256"}', "json"),
        (b'{"alg":"ES256","x":"\xff"}', "json"),
        (b'{"alg":"ES256","x":"\xed\xa0\x80"}', "json"),  # a surrogate in CESU-8
        (b'{"alg":"ES256","x":"\\ud800"}', "json"),
        (b'{"alg":"ES256","x":"\n"}', "json"),
    ],
)
def test_header_refuses(members: object, reason: str) -> None:
    """A header is a strict JSON object with members of the right types, without `crit` and `b64` (B.8)."""
    with pytest.raises(MalformedToken, match=rf"^{reason}$"):
        decode_header(header(members))


def test_header_bounds_the_kid() -> None:
    """A kid of the greatest length passes, and defines the bound (A.4)."""
    assert decode_header(header({"alg": "ES256", "kid": "k" * MAX_KID_LENGTH})).kid == "k" * MAX_KID_LENGTH


def test_header_is_bounded_before_it_is_decoded() -> None:
    """A segment over the bound is refused by its length alone, one at the bound is decoded (B.8)."""
    with pytest.raises(MalformedToken, match=r"^oversized_header$"):
        decode_header(b"!" * (MAX_HEADER_BYTES + 1))
    with pytest.raises(MalformedToken, match=r"^base64url$"):
        decode_header(b"!" * MAX_HEADER_BYTES)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"alg":"ES256"}')
@example(b'{"alg":"HS256","kid":"\xc3\xa9","typ":"at+jwt"}')
def test_header_is_total(raw: bytes) -> None:
    """Any bytes give a header of texts, or MalformedToken."""
    try:
        found = decode_header(base64url(raw).encode())
    except MalformedToken:
        return
    members = json.loads(raw)
    assert (found.alg, found.kid, found.typ) == (members["alg"], members.get("kid"), members.get("typ"))


@given(st.dictionaries(st.text(), JSON))
@example({"emoji": "\U0001f600", "\u00e9": [{}], "big": 10**300})
def test_object_round_trip(value: dict[str, object]) -> None:
    """A JSON object is read as it was written, escaped or not, with or without white space around it."""
    for raw in (json.dumps(value), json.dumps(value, ensure_ascii=False), f" \t\r\n{json.dumps(value, indent=1)} \n"):
        assert decode_object(raw.encode()) == value


def test_object_with_a_surrogate_pair() -> None:
    """An escaped pair is a character like any other."""
    assert decode_object(b'{"x":"\\ud83d\\ude00"}') == {"x": "\U0001f600"}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"x":"\\ud83d"}', "json"),
        (b'{"x":"\\ude00\\ud83d"}', "json"),
        (b'{"\\ud83d":1}', "json"),
        (b'{"x":[{"y":"\\udfff"}]}', "json"),
        (b'{"x":NaN}', "number"),
        (b'{"x":Infinity}', "number"),
        (b'{"x":-Infinity}', "number"),
        (b'{"x":1e999}', "number"),
        (b'{"x":-1e999}', "number"),
        (b'{"x":[1E+400]}', "number"),
        pytest.param(b'{"x":' + b"9" * 5000 + b"}", "json", id="digits"),  # Python has a limit of its own
        (b'{"x":nan}', "json"),
        (b'{"x":+1}', "json"),
        (b'{"x":01}', "json"),
        (b'{"x":0x1}', "json"),
        (b'{"x":1,}', "json"),
        (b"{'x':1}", "json"),
        (b"{x:1}", "json"),
        (b'{"x":1}{"x":1}', "json"),
        (b'{"x":1}\x00', "json"),
        (b'\x00{"x":1}', "json"),
        (b"\xc2\xa0{}", "json"),
        (b"{}\xc2\xa0", "json"),
        (b"", "json"),
        (b" ", "json"),
        (b'{"sub":"ada","sub":"eve"}', "duplicate_member"),
        (b'{"a":[{"b":1,"b":1}]}', "duplicate_member"),
        (b"true", "not_an_object"),
        (b"[{}]", "not_an_object"),
    ],
)
def test_object_refuses(raw: bytes, reason: str) -> None:
    """Lone surrogates, NaN, Infinity, numbers beyond a float, duplicates and everything but an object go (B.9)."""
    with pytest.raises(MalformedToken, match=rf"^{reason}$"):
        decode_object(raw)


def nested(depth: int) -> bytes:
    """Return an object that is ``depth`` deep in all."""
    return b'{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1_000, 100_000])
def test_object_bounds_the_depth(depth: int) -> None:
    """Nesting is bounded below what would exhaust the stack; the greatest depth passes (B.9)."""
    assert list(decode_object(nested(MAX_DEPTH))) == ["x"]
    with pytest.raises(MalformedToken, match=r"^nesting$"):
        decode_object(nested(depth))


@pytest.mark.parametrize(
    "raw", [b'{"x":' * 50_000, b"[" * 50_000, b"{}" + b"[" * 50_000], ids=["objects", "arrays", "behind"]
)
def test_object_bounds_the_depth_of_what_is_no_json(raw: bytes) -> None:
    """Brackets that never close are refused as well."""
    with pytest.raises(MalformedToken, match=r"^nesting$"):
        decode_object(raw)


@pytest.mark.parametrize("beside", ["[]", "[[[]],{}]", '"[["', '"]]"', r'"\"[["', r'"\\"', r'"[[\\","]]"'])
def test_object_bounds_the_depth_behind_others(beside: str) -> None:
    """Brackets before the deepest ones, closed or in a text, do not move the bound (B.9)."""
    half = MAX_DEPTH // 2

    def raw(depth: int) -> bytes:
        deepest = "[" * (depth - half) + "]" * (depth - half)
        return ('{"x":' + "[" * (half - 1) + f"[],{beside},{deepest}" + "]" * (half - 1) + "}").encode()

    assert list(decode_object(raw(MAX_DEPTH))) == ["x"]
    with pytest.raises(MalformedToken, match=r"^nesting$"):
        decode_object(raw(MAX_DEPTH + 1))


@pytest.mark.parametrize(("raw", "reason"), [(b'{"x":' + b"[]" * 40 + b"X" * 40, "json"), (b"[X" * 40, "nesting")])
def test_object_counts_brackets_alone(raw: bytes, reason: str) -> None:
    """Any other character between the brackets is none of them."""
    with pytest.raises(MalformedToken, match=rf"^{reason}$"):
        decode_object(raw)


def test_object_counts_no_brackets_in_texts() -> None:
    """Brackets in a text, behind quotation marks and backslashes too, do not nest."""
    value = {"x": '["\\{[' * 100, "y": [[] for _ in range(100)]}
    assert decode_object(json.dumps(value).encode()) == value


@given(st.binary())
@example(b"]" * 40 + b"[" * 40)
@example(b'{"a": [1]}')
@example(b'"' + b"[" * 40)
@example(b"\\" + b"[" * 40)
def test_object_is_total(raw: bytes) -> None:
    """Any bytes give a dict, or MalformedToken (B.7)."""
    try:
        value = decode_object(raw)
    except MalformedToken:
        return
    assert type(value) is dict


def test_a_recursion_error_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the decoder run out of stack all the same, that is a refusal (B.7)."""

    def exhausted(_text: str, _index: int) -> None:
        raise RecursionError

    monkeypatch.setattr(compact, "_scan", exhausted)
    with pytest.raises(MalformedToken, match=r"^json$"):
        decode_object(b"{}")


@given(st.binary())
@example(b"\xfb\xff\xfe")
@example(b"\x00\x00\x17")  # "AAAX"
def test_base64url_is_written_without_padding(raw: bytes) -> None:
    """The encoding is that of RFC 7515 2, in the URL-safe alphabet."""
    assert encode_base64url(raw) == base64url(raw).encode()


def test_what_is_written() -> None:
    """An object is written without white space and in ASCII, its sets as sorted lists."""
    members = {"sub": "é", "scp": {"b", "a"}, "aud": frozenset({"y", "x"}), "n": [1, None, True]}
    raw = b'{"sub":"\\u00e9","scp":["a","b"],"aud":["x","y"],"n":[1,null,true]}'
    assert encode_object(members) == base64url(raw).encode()


@given(st.dictionaries(st.text(), JSON))
def test_what_is_written_is_read(members: dict[str, object]) -> None:
    """Whatever JSON object is written comes back."""
    assert decode_object(decode_base64url(encode_object(members))) == members


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"x": "\ud800"}, "a text holds half of a surrogate pair, which UTF-8 cannot say"),
        ({1: "a", "1": "b"}, 'a name is there twice once it is text, such as 1 and "1"'),
        ({"x": json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)}, "it is nested deeper than 32 levels"),
        ({"x": float("nan")}, "Out of range float values are not JSON compliant"),
        ({"x": float("inf")}, "Out of range float values are not JSON compliant"),
    ],
    ids=["surrogate", "twice", "nested", "NaN", "Infinity"],
)
def test_what_would_be_refused_is_not_written(members: dict[Any, Any], message: str) -> None:
    """Members that decoding refuses are never encoded either; the error has the reason."""
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}"):
        encode_object(members)


def test_what_is_deeper_than_the_stack_is_not_written() -> None:
    """Nesting that the encoder itself cannot follow is refused with the same words."""
    nest: list[object] = []
    for _ in range(10_000):
        nest = [nest]
    with pytest.raises(ValueError, match=r"^it is nested deeper than 32 levels$"):
        encode_object({"x": nest})


def test_what_json_cannot_say_is_not_written() -> None:
    """A value of another type is named by it."""
    with pytest.raises(TypeError, match=r"^a value of type bytes cannot be written as JSON$"):
        encode_object({"x": b"1"})


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a":1,"a":2}', "duplicate_member"),
        (b'{"a":NaN}', "number"),
        (b'{"a":-Infinity}', "number"),
        (b'{"a":1e999}', "number"),
    ],
)
def test_white_space_around_an_object_changes_nothing(raw: bytes, reason: str) -> None:
    """An object that is refused without white space around it is refused with it too (B.9)."""
    assert decode_object(b' {"a":1}\n') == {"a": 1}
    for text in (raw, b" " + raw, raw + b"\n", b"\t" + raw + b" "):
        with pytest.raises(MalformedToken, match=f"^{reason}$"):
            decode_object(text)


@pytest.mark.parametrize("length", range(1, 9))
def test_one_spelling_of_each_ending(length: int) -> None:
    """Of all last characters those are accepted that encoding would write; no length leaves six bits over (A.6)."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = 0
    for last in alphabet:
        segment = b"A" * (length - 1) + bytes([last])
        try:
            decoded = decode_base64url(segment)
        except MalformedToken:
            continue
        assert encode_base64url(decoded) == segment
        accepted += 1
    assert accepted == {0: 64, 1: 0, 2: 4, 3: 16}[length % 4]
