"""Read the body of a request: a form, as OAuth 2 has it, or JSON, of at most 64 KiB."""

import json
import re
from binascii import a2b_qp
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from fastapi_guard.jwt.compact import MalformedToken, decode_object

# A longer body is rejected before it is parsed, and the rest of it is not read.
MAX_BODY_BYTES: Final = 64 * 1024
FORM: Final = "application/x-www-form-urlencoded"
_EXTRA: Final = "extra_forbidden"
_JSON: Final = "application/json"
_MAX_FIELDS: Final = 64
_MAX_LONE: Final = 256
_MAX_SEPARATORS: Final = 4200
_SEPARATORS: Final = b'{[,"'
_LONE_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_LONGEST_KEPT: Final = 128
_KEEP: Final = "fastapi_guard_keep"
_KEPT: Final = "fastapi_guard_kept"
_TOO_LONG: Final = "The body is too long"
_UNSUPPORTED: Final = f"Send {FORM} or {_JSON}"

ModelT = TypeVar("ModelT", bound=BaseModel)


def is_form(request: Request) -> bool:
    """Return whether the body is a form by its content type."""
    return _kind_of(request) == FORM


async def texts_in(request: Request) -> dict[str, str]:
    """Return the texts in a form or a JSON object; values of other types are left out.

    Raises:
        HTTPException: 413 where the body is longer than 64 KiB, 415 where it is neither a form nor JSON.
        RequestValidationError: The body cannot be read, or has a field twice (RFC 6749 3.1).
    """
    kind = _kind_of(request)
    if kind not in (FORM, _JSON):
        raise HTTPException(415, _UNSUPPORTED)
    raw = await _body_of(request)
    if kind != FORM:
        return _texts(raw)
    texts = _form(raw)
    kept = {name: texts[name] for name in getattr(request.state, _KEEP, ()) if name in texts}
    setattr(request.state, _KEPT, {name: text for name, text in kept.items() if len(text) <= _LONGEST_KEPT})
    return texts


def keep_fields(request: Request, names: Sequence[str]) -> None:
    """Keep these fields of the form that ``texts_in`` will read, unless they are long, for ``kept_fields``."""
    setattr(request.state, _KEEP, names)


def kept_fields(request: Request) -> dict[str, str]:
    """Return the fields of ``keep_fields``, none before the form was read."""
    kept: dict[str, str] = getattr(request.state, _KEPT, {})
    return kept


async def json_in(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body: UTF-8, bounded depth, no member twice, no lone surrogate.

    Raises:
        HTTPException: 413 where the body is longer than 64 KiB, 415 where it is not JSON.
        RequestValidationError: The body cannot be read.
    """
    if _kind_of(request) != _JSON:
        raise HTTPException(415, f"Send {_JSON}")
    raw = await _body_of(request)
    _check_separators(raw)
    try:
        members: dict[str, Any] = decode_object(raw)
    except MalformedToken:
        _unreadable("json_invalid")
    _check_scope(members)
    return members


async def model_in(request: Request, model: type[ModelT], default: ModelT | None = None) -> ModelT:
    """Return the model of the JSON object in the body, in the strict mode of pydantic; see ``json_in``.

    Args:
        request: The request.
        model: The class of the model.
        default: The model for an empty body; ``None`` where there has to be one.

    Raises:
        HTTPException: 413 where the body is longer than 64 KiB, 415 where it is not JSON.
        RequestValidationError: The body cannot be read, or does not fit the model.
    """
    raw = await _body_of(request)
    if not raw and default is not None:
        return default
    if _kind_of(request) != _JSON:
        raise HTTPException(415, f"Send {_JSON}")
    try:
        # First as strictly as a token: pydantic accepts a member twice.
        decode_object(raw)
        return model.model_validate_json(raw, strict=True)
    except MalformedToken:
        _unreadable("json_invalid")
    except ValidationError as error:
        errors = [{**found, "loc": ("body", *found["loc"])} for found in error.errors(include_url=False)]
        known = f"Extra inputs are not permitted; known are {', '.join(model.model_fields)}"
        named = [{**found, "msg": known} if found["type"] == _EXTRA else found for found in errors]
        raise RequestValidationError(without_input(named)) from None


def without_input(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the errors of a validation without anything that was sent, which may be a secret."""
    return [{"type": found["type"], "loc": _declared(found), "msg": found["msg"]} for found in errors]


def json_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Return the OpenAPI description of a body that ``model_in`` reads."""
    content = {_JSON: {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": required, "content": content}}


def required(texts: Mapping[str, str], *names: str) -> str:
    """Return the text under the first of ``names`` that is there.

    Raises:
        RequestValidationError: There is no such field.
    """
    for name in names:
        if name in texts:
            return texts[name]
    raise RequestValidationError([{"type": "missing", "loc": ("body", names[0]), "msg": "Field required"}])


def described(required_fields: Sequence[str], *optional: str) -> dict[str, Any]:
    """Return the OpenAPI description of such a body: the form alone, since generators of clients expect one type."""
    schema = {
        "type": "object",
        "required": list(required_fields),
        "properties": {name: _property(name) for name in (*required_fields, *optional)},
    }
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}


def _declared(error: Mapping[str, Any]) -> tuple[int | str, ...]:
    place = tuple(error["loc"])
    # The name of a member that is not known was sent too. It may be gone already.
    return place[:-1] or place if error["type"] == _EXTRA else place


def described_json(*fields: str) -> dict[str, Any]:
    """Return the OpenAPI description of a JSON body whose members may be objects."""
    schema = {"type": "object", "properties": {name: {} for name in fields}}
    return {"requestBody": {"required": True, "content": {_JSON: {"schema": schema}}}}


def _kind_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _body_of(request: Request) -> bytes:
    # A client that states the length gets the answer before it has sent everything.
    length = request.headers.get("content-length", "")
    if length.isdecimal() and len(length) < 20 and int(length) > MAX_BODY_BYTES:
        raise HTTPException(413, _TOO_LONG)
    raw = bytearray()
    try:
        async for part in request.stream():
            raw += part
            if len(raw) > MAX_BODY_BYTES:
                raise HTTPException(413, _TOO_LONG)
    except ClientDisconnect:
        # Not an error of the application, and so not a traceback in its log.
        _unreadable("body_incomplete")
    return bytes(raw)


def _property(name: str) -> dict[str, str]:
    return {"type": "string", **({"format": "password"} if name == "password" else {})}


def _form(raw: bytes) -> dict[str, str]:
    # A percent sign that begins no escape is itself, as browsers have it.
    raw, lone = _LONE_PERCENT.subn(b"%25", raw, _MAX_LONE + 1)
    if lone > _MAX_LONE or raw.count(b"&") >= _MAX_FIELDS:
        _unreadable("form_invalid")
    pairs = [part.partition(b"=") for part in raw.split(b"&") if part]
    texts = {_unescaped(name): _unescaped(value) for name, _, value in pairs}
    if len(texts) != len(pairs):
        _unreadable("form_invalid")
    return texts


def _unescaped(part: bytes) -> str:
    # The escapes of quoted-printable text differ by their sign, and are decoded in C: urllib takes 65 ms for 64 KiB.
    quoted = part.replace(b"+", b" ").replace(b"=", b"%3D").replace(b"%", b"=")
    # Bytes that are not UTF-8 become lone surrogates, which no username and no password has.
    return a2b_qp(quoted).decode("utf-8", "surrogateescape")


def _texts(raw: bytes) -> dict[str, str]:
    _check_separators(raw)
    # A lone surrogate in a password makes it a wrong password, not a body that cannot be read.
    try:
        # No number is used; to read thousands of digits takes milliseconds.
        # Of bytes, Python would read UTF-16 and UTF-32 too (RFC 8259 8.1).
        members: object = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_int=bool, parse_float=bool)
    except (ValueError, RecursionError):
        _unreadable("json_invalid")
    if not isinstance(members, dict):
        _unreadable("json_invalid")
    _check_scope(members)
    return {name: value for name, value in members.items() if isinstance(value, str)}


def _check_separators(raw: bytes) -> None:
    # Thousands of members, items or objects take longer to read than all else. A password of 4096 of these passes.
    if len(raw) - len(raw.translate(None, _SEPARATORS)) > _MAX_SEPARATORS:
        _unreadable("json_invalid")


def _check_scope(members: Mapping[str, Any]) -> None:
    # Left out like other values, a list would give every scope instead of the few that it names.
    if not isinstance(members.get("scope"), str | None):
        _unreadable("json_invalid")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        msg = "duplicate member"
        raise ValueError(msg)
    return members


def _unreadable(kind: str) -> NoReturn:
    # Without the input, which may contain a password.
    raise RequestValidationError([{"type": kind, "loc": ("body",), "msg": "The body cannot be read"}]) from None
