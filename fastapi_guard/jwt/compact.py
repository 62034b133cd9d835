"""The compact form of a JWS, parsed once and strictly, and written so (RFC 7515 3.1 and 5.2, RFC 8725 3).

joserfc is laxer than a resource server may be: it takes UTF-16, NaN, duplicate members and ``b64``, and it meets a
malformed ``crit`` with a TypeError. So the form is ours, while keys, algorithms and signatures stay joserfc's. Whatever
is wrong with a token that came, this module raises MalformedToken and nothing else.
"""

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isinf
from typing import Any, Final, NoReturn

from fastapi_guard.claims import Claims

MAX_HEADER_BYTES = 12_288  # of base64url: over 8 KiB of header, room for an x5c chain of ordinary length
MAX_KID_LENGTH = 512
MAX_DEPTH = 32

# "-_" become the standard alphabet, and what is standard but not URL-safe becomes what strict decoding refuses.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
# What json.dumps writes and decode_object refuses.
_UNACCEPTABLE: Final = {
    "json": "a text holds half of a surrogate pair, which UTF-8 cannot say",
    "nesting": f"it is nested deeper than {MAX_DEPTH} levels",
    "duplicate_member": 'a name is there twice once it is text, such as 1 and "1"',
}
# By the length modulo four: the padding that strict decoding wants, and the last characters that leave no stray bits
# behind, where not all do.
_ENDINGS: Final = ((b"", None), (None, None), (b"==", b"AQgw"), (b"=", b"AEIMQUYcgkosw048"))


class MalformedToken(ValueError):
    """The token is not an acceptable compact JWS; the text is the reason, for the log."""


@dataclass(frozen=True, slots=True)
class Header:
    """The members of a JOSE header that a verification looks at; all others are ignored.

    ``jwk``, ``jku``, ``x5u`` and ``x5c`` are among the ignored: a token chooses no key (RFC 8725 3.10).
    """

    alg: str
    kid: str | None
    typ: str | None


def split(token: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the signing input, the header, the payload and the signature, all but the first still in base64url.

    Raises:
        MalformedToken: The token is not of three parts; five parts are a JWE.
    """
    signing_input, _, signature = token.rpartition(b".")
    header, dot, payload = signing_input.partition(b".")
    if not dot or b"." in payload:
        raise MalformedToken("not_three_parts")
    return signing_input, header, payload, signature


def decode_base64url(segment: bytes) -> bytes:
    """Decode base64url without padding (RFC 7515 2), refusing all that has a second spelling.

    Raises:
        MalformedToken: White space, padding, another alphabet, stray bits.
    """
    padding, last = _ENDINGS[len(segment) % 4]
    if padding is None or (last is not None and segment[-1] not in last):
        raise MalformedToken("base64url")
    try:
        return a2b_base64(segment.translate(_TO_STANDARD) + padding, strict_mode=True)
    except ValueError:
        raise MalformedToken("base64url") from None


def decode_header(segment: bytes) -> Header:
    """Return the checked header of a token.

    Raises:
        MalformedToken: It is too large, no JSON object, or a member is of a wrong type; there is a ``crit``, since no
            extension is understood here (RFC 7515 4.1.11), or a ``b64`` (RFC 7797 7).
    """
    if len(segment) > MAX_HEADER_BYTES:
        raise MalformedToken("oversized_header")
    members = decode_object(decode_base64url(segment))
    if "crit" in members or "b64" in members:
        raise MalformedToken("critical_header")
    alg, kid, typ = members.get("alg"), members.get("kid"), members.get("typ")
    if not isinstance(alg, str) or not isinstance(kid, str | None) or not isinstance(typ, str | None):
        raise MalformedToken("header_type")
    if kid is not None and len(kid) > MAX_KID_LENGTH:
        raise MalformedToken("oversized_kid")
    for name in ("kid", "typ"):
        if name in members and members[name] is None:
            raise MalformedToken("header_type")
    return Header(alg, kid, typ)


def decode_object(raw: bytes) -> Claims:
    """Return the JSON object in ``raw``: UTF-8, no duplicate member, no NaN or Infinity, bounded depth, no surrogate.

    Raises:
        MalformedToken: It is anything else.
    """
    try:
        text = raw.decode()
        # Counting brackets bounds the depth of nearly every token; only what has many is walked.
        if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
            _check_depth(text)
        value, end = _scan(text, 0) if text.startswith("{") else (None, -1)
        if end != len(text):  # white space around the object is rare
            value = _DECODER.decode(text)
        if "\\" in text:  # only an escape can bring in half of a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except MalformedToken:
        raise
    except (ValueError, StopIteration, RecursionError, OverflowError, TypeError):
        raise MalformedToken("json") from None
    if type(value) is not dict:
        raise MalformedToken("not_an_object")
    return value


def encode_base64url(raw: bytes) -> bytes:
    """Return ``raw`` in base64url without padding (RFC 7515 2)."""
    return b2a_base64(raw, newline=False).rstrip(b"=").translate(_TO_URL_SAFE)


def encode_object(members: Mapping[str, Any]) -> bytes:
    """Return a segment with ``members`` as a JSON object that ``decode_object`` reads. Sets become sorted lists.

    Raises:
        TypeError: A value is nothing that JSON has.
        ValueError: It would be refused: NaN or Infinity, half of a surrogate pair, too deep, a name twice.
    """
    try:
        raw = json.dumps(members, separators=(",", ":"), allow_nan=False, default=_as_list).encode()
        decode_object(raw)
    except RecursionError:
        raise ValueError(_UNACCEPTABLE["nesting"]) from None
    except MalformedToken as error:
        raise ValueError(_UNACCEPTABLE[str(error)]) from None
    return encode_base64url(raw)


def _as_list(value: object) -> list[Any]:
    if isinstance(value, set | frozenset):
        return sorted(value)
    msg = f"a value of type {type(value).__name__} cannot be written as JSON"
    raise TypeError(msg)


def _check_depth(text: str) -> None:
    depth = 0
    in_string = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif in_string:
            escaped = character == "\\"
            in_string = character != '"'
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedToken("nesting")
        elif character in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedToken("duplicate_member")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise MalformedToken("number")
    return number


def _no_constant(_: str) -> NoReturn:
    raise MalformedToken("number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
# What its raw_decode calls: the value and the index behind it, StopIteration where none begins.
_scan: Callable[[str, int], tuple[Any, int]] = _DECODER.scan_once  # type: ignore[attr-defined]
