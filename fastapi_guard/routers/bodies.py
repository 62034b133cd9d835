"""The body of a login: a form, as OAuth 2 has it, or JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError

# A password of a megabyte is a wrong password; what is longer than this is not read.
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
_MAX_FIELDS: Final = 64
_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"


async def texts_in(request: Request) -> dict[str, str]:
    """Return the texts in a form or a JSON object; what is no text there is left out.

    Raises:
        HTTPException: 413 where it is too long, 415 where it is neither.
        RequestValidationError: It cannot be read, or has a field twice (RFC 6749 3.1).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_FORM, _JSON):
        raise HTTPException(415, f"Send {_FORM} or {_JSON}")
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > MAX_BODY_BYTES:
            raise HTTPException(413, "The body is too long")
    return _form(bytes(raw)) if kind == _FORM else _json(bytes(raw))


def required(texts: Mapping[str, str], *names: str) -> str:
    """Return the text under the first of ``names`` that is there.

    Raises:
        RequestValidationError: None is.
    """
    for name in names:
        if name in texts:
            return texts[name]
    raise RequestValidationError([{"type": "missing", "loc": ("body", names[0]), "msg": "Field required"}])


def described(required_fields: Sequence[str], *, aliases: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """Return what OpenAPI says about such a body; ``aliases`` are other names that JSON may use for a field."""
    form = {name: _property(name) for name in required_fields}
    form_schema = {"type": "object", "required": list(required_fields), "properties": form}
    others = {other: _property(other) for each in (aliases or {}).values() for other in each}
    strict = [name for name in required_fields if name not in (aliases or {})]
    json_schema = {"type": "object", "required": strict, "properties": {**form, **others}}
    content = {_FORM: {"schema": form_schema}, _JSON: {"schema": json_schema}}
    return {"requestBody": {"required": True, "content": content}}


def _property(name: str) -> dict[str, str]:
    return {"type": "string", **({"format": "password"} if name == "password" else {})}


def _form(raw: bytes) -> dict[str, str]:
    try:
        # What is not UTF-8 becomes lone surrogates: no username, no password.
        pairs = parse_qsl(
            raw.decode("utf-8", "surrogateescape"),
            keep_blank_values=True,
            errors="surrogateescape",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        _unreadable("form_invalid")
    texts = dict(pairs)
    if len(texts) != len(pairs):
        _unreadable("form_invalid")
    return texts


def _json(raw: bytes) -> dict[str, str]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        _unreadable("json_invalid")
    if not isinstance(body, dict):
        _unreadable("json_invalid")
    return {name: value for name, value in body.items() if isinstance(value, str)}


def _unreadable(kind: str) -> NoReturn:
    # Without the input: it may hold a password.
    raise RequestValidationError([{"type": kind, "loc": ("body",), "msg": "The body cannot be read"}]) from None
