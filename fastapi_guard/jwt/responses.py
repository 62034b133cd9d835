"""Responses of an issuer: read within a limit, decompressed, parsed, and how long they may be kept."""

import json
import re
import zlib
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final

from fastapi_guard.exceptions import GuardError
from fastapi_guard.jwt.urls import without_query

if TYPE_CHECKING:
    import httpx2

_MAX_AGE: Final = re.compile(r'(?:^|,)\s*max-age\s*=\s*"?([0-9]{1,10})"?\s*(?:,|$)', re.IGNORECASE)
_UNCACHED: Final = re.compile(r"(?:^|,)\s*no-(?:store|cache)\s*(?:,|=|$)", re.IGNORECASE)
_MAX_DIGITS: Final = 1000
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# Not encodings, though some servers send them as one.
_NO_ENCODINGS: Final = ("", "identity", "none", "utf-8", "utf8")
_ZLIB_ENCODINGS: Final = ("gzip", "x-gzip", "deflate")
_GZIP: Final = 16 + zlib.MAX_WBITS
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
_GZIP_BEGIN: Final = b"\x1f\x8b"


class FetchError(GuardError):
    """No usable answer came; the text is for the log.

    Attributes:
        status: The status code of the answer, ``None`` where none came.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        """Keep the ``status`` of the answer."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document, and how long it may be kept.

    Attributes:
        value: The parsed JSON.
        max_age_seconds: The rest of its freshness by Cache-Control (RFC 9111 4.2), ``None`` without such a directive.
    """

    value: Any
    max_age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read to its end; also what an ``in_process`` transport returns.

    Attributes:
        status: The status code.
        headers: The header fields.
        body: The body. A transport may return it in pieces.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""


def content_of(answer: Answer) -> bytes:
    """Return the body of an answer that was read to its end, without a byte order mark."""
    assert isinstance(answer.body, bytes)  # noqa: S101 - only what a transport returns comes in pieces
    return answer.body.removeprefix(_BYTE_ORDER_MARK)


async def read(response: "httpx2.Response", url: str, max_bytes: int, statuses: Collection[int]) -> Answer:
    """Return a response with its body, decompressed where it came compressed.

    Raises:
        FetchError: It has another status; or its body has more than ``max_bytes`` bytes, compressed or not, breaks off,
            or came in another encoding.
    """
    if response.status_code not in statuses:
        msg = f"{without_query(url)} answered {response.status_code}"
        raise FetchError(msg, status=response.status_code)
    return Answer(response.status_code, response.headers, await _body(response, url, max_bytes))


async def _body(response: "httpx2.Response", url: str, max_bytes: int) -> bytes:
    if response.is_stream_consumed:  # a transport in memory read and decoded it already
        _check_size(len(response.content), url, max_bytes)
        return response.content
    decode = _decoder(response.headers.get("Content-Encoding", ""), url)
    received, content = 0, bytearray()
    async for piece in response.aiter_raw():
        received += len(piece)
        content += piece if decode is None else decode.decompress(piece, max_bytes + 1 - len(content))
        _check_size(max(received, len(content)), url, max_bytes)
    if decode is not None and not decode.is_complete:
        msg = f"{without_query(url)} answered with a compressed body that breaks off"
        raise FetchError(msg)
    return bytes(content)


class _Decoder:
    """Decompress gzip of one or several members (RFC 1952 2.2), zlib, and bare deflate as some servers send it."""

    def __init__(self, *, may_be_bare: bool) -> None:
        self._may_be_bare = may_be_bare
        self._begun = b""
        self._engine: zlib._Decompress | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the compressed data has ended."""
        return self._engine is not None and self._engine.eof

    def decompress(self, piece: bytes, at_most: int) -> bytes:
        """Return the content of the next piece, at most so many bytes.

        Raises:
            zlib.error: It is not in one of the formats.
        """
        content = b""
        if self._engine is None:
            piece = self._begun + piece
            if len(piece) < 2:
                self._begun = piece
                return b""
            self._engine = zlib.decompressobj(wbits=self._window_of(piece))
        while piece and len(content) < at_most:
            if self._engine.eof:
                # Zeros may fill a block behind the last member.
                if not piece.strip(b"\0"):
                    break
                self._engine = zlib.decompressobj(wbits=_GZIP)
            content += self._engine.decompress(piece, at_most - len(content))
            piece = self._engine.unused_data
        return content

    def _window_of(self, head: bytes) -> int:
        is_zlib = head[0] & 0x0F == zlib.DEFLATED and int.from_bytes(head[:2], "big") % 31 == 0  # RFC 1950 2.2
        is_bare = self._may_be_bare and not is_zlib and not head.startswith(_GZIP_BEGIN)
        return -zlib.MAX_WBITS if is_bare else _GZIP_OR_ZLIB


def _decoder(encodings: str, url: str) -> _Decoder | None:
    # Some servers compress without being asked to; the standard library bounds what these two expand to.
    names = [name for name in (part.strip().lower() for part in encodings.split(",")) if name not in _NO_ENCODINGS]
    if not names:
        return None
    if len(names) > 1 or names[0] not in _ZLIB_ENCODINGS:
        msg = f"{without_query(url)} answered in an encoding that was not asked for"
        raise FetchError(msg)
    return _Decoder(may_be_bare=names[0] == "deflate")


def _check_size(size: int, url: str, max_bytes: int) -> None:
    if size > max_bytes:
        msg = f"{without_query(url)} answered more than {max_bytes} bytes"
        raise FetchError(msg)


def parse(url: str, content: bytes) -> Any:
    """Return the JSON in ``content``, leniently: a duplicate member or NaN in a key set harms no other key.

    Raises:
        FetchError: It is not JSON in UTF-8, the only encoding of JSON between systems (RFC 8259 8.1).
    """
    check_encoding(url, content)
    try:
        document = json.loads(content.decode("utf-8"), parse_int=_integer)
    except (ValueError, RecursionError):
        document = inf
    if document in (inf, -inf):  # also a text such as Infinity, which is not JSON, and thousands of digits alone
        msg = f"{without_query(url)} did not answer with JSON"
        raise FetchError(msg, status=200)
    return document


def check_encoding(url: str, content: bytes) -> None:
    """Reject JSON in UTF-16 or UTF-32, whose first characters have bytes of zero.

    Raises:
        FetchError: It is in one of these.
    """
    if b"\0" in content[:4]:
        msg = f"{without_query(url)} answered in UTF-16 or UTF-32 (RFC 8259 8.1: UTF-8), and did not answer with JSON"
        raise FetchError(msg, status=200)


def _integer(text: str) -> float:
    # Python refuses to read thousands of digits, and so would refuse the whole document.
    return int(text) if len(text) <= _MAX_DIGITS else float(text)


def freshness(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Cache-Control and Age leave of ``max-age``, ``None`` without one."""
    control = headers.get("Cache-Control", "")
    if _UNCACHED.search(control):
        return 0.0
    found = _MAX_AGE.search(control)
    if found is None:
        return None
    age = headers.get("Age", "0")
    spent = int(age) if age.isascii() and age.isdigit() and len(age) <= 10 else 0
    return float(max(0, int(found[1]) - spent))
