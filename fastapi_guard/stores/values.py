"""The values of records: JSON of a known form, written and read in one place.

A value that this package does not write is unreadable: it was edited by hand, damaged, or written by another version.
Its content is never logged. Where a record lets a user in, an unreadable one counts as expired
(``RecordForm.read_or_none``). Where the absence of a record would let a user in, an unreadable one is a 503.
"""

import json
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import cache
from math import isfinite
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from fastapi_guard.exceptions import ServiceUnavailable
from fastapi_guard.stores.protocol import Record

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    FormT = TypeVar("FormT", bound=DataclassInstance)
else:
    FormT = TypeVar("FormT")
ReadT = TypeVar("ReadT")

#: A number of tries and the like, from 0 on.
Count = Annotated[int, "from 0 on"]

logger: logging.Logger = logging.getLogger("fastapi_guard")

_LAST_SECOND: Final = 253_402_300_799  # of the year 9999
# Without bool, which is an int otherwise.
_NUMBERS, _WHOLE = frozenset({int, float}), frozenset({int})
_UNREADABLE: Final = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


class UnreadableRecord(ServiceUnavailable):
    """503: the value of a record is not one that this package writes.

    Attributes:
        record: The record as a store can replace it, where the store itself cannot read it.
    """

    default_reason = "unreadable_record"
    record: Record | None = None


def decoded(value: bytes | str, read: Callable[[Any], ReadT], kind: str) -> ReadT:
    """Return what ``read`` returns for the JSON value of a record.

    Args:
        value: The value.
        read: Raises AttributeError, KeyError, TypeError or ValueError for a value that is not of its form.
        kind: What the record is of, for the log, such as ``"a session"``.

    Raises:
        UnreadableRecord: The value is not one that this package writes. Nothing of it is logged.
    """
    return _checked(lambda: read(_JSON.decode(value if isinstance(value, str) else value.decode("utf-8"))), kind)


def readable(records: Iterable[Record], read: Callable[[Record], ReadT]) -> list[ReadT]:
    """Return what ``read`` returns for these records, without those that cannot be read."""
    found = []
    for record in records:
        try:
            found.append(read(record))
        except UnreadableRecord:
            continue
    return found


class RecordForm(Generic[FormT]):
    """A dataclass as the value of records: a JSON object with each of its fields and nothing else.

    Its fields are of the types ``str``, ``int``, ``Count``, ``bool``, ``bytes`` (base64url in JSON), ``float`` (seconds
    since the epoch), a Literal of texts, lists and sequences of these, Mapping (any JSON object), another such
    dataclass, or one of these or ``None``. A field with a default is in the JSON too: a number of tries that is missing
    is not zero.
    """

    def __init__(self, form: type[FormT], kind: str) -> None:
        """Write and read values of ``form``; ``kind`` is what they are records of, such as ``"a pending login"``."""
        self._form = form
        self._kind = kind

    def encoded(self, value: FormT) -> bytes:
        """Return the JSON of ``value``.

        Raises:
            TypeError: A member of a mapping is not JSON.
            ValueError: A number is not finite.
        """
        return json.dumps(asdict(value), separators=(",", ":"), allow_nan=False, default=_base64).encode("ascii")

    def read(self, value: bytes | str, where: Callable[[FormT], bool] | None = None) -> FormT:
        """Return what was encoded; a value for which ``where`` returns ``False`` is unreadable too.

        Raises:
            UnreadableRecord: The value is of another form.
        """

        def built(members: object) -> FormT:
            found: FormT = _built(self._form, members)
            _check(where is None or where(found))
            return found

        return decoded(value, built, self._kind)

    def read_or_none(self, record: Record | None) -> FormT | None:
        """Return what was encoded into a record; ``None`` where there is no record, or one that cannot be read."""
        try:
            return None if record is None else self.read(record.value)
        except UnreadableRecord:
            return None

    def part_or_none(self, members: Mapping[str, Any]) -> FormT | None:
        """Return what ``asdict`` made ``members`` of, a mapping in another record; ``None`` where they are others."""
        try:
            return _checked(lambda: cast("FormT", _built(self._form, members)), self._kind)
        except UnreadableRecord:
            return None


def check_texts(*values: object) -> None:
    """Reject members of a record that are neither texts nor absent.

    Raises:
        ValueError: One is of another type.
    """
    _check(all(value is None or isinstance(value, str) for value in values))


def check_moments(*values: Any) -> None:
    """Reject members of a record that are not seconds since the epoch.

    Raises:
        ValueError: One is not a number, or of no year that a clock has.
    """
    _check(_NUMBERS.issuperset(map(type, values)))
    _check(min(values, default=0) >= -_LAST_SECOND and max(values, default=0) <= _LAST_SECOND)


def check_counts(*values: Any) -> None:
    """Reject members of a record that are not whole numbers from 0 on.

    Raises:
        ValueError: One is of another type, or negative.
    """
    _check(_WHOLE.issuperset(map(type, values)) and min(values, default=0) >= 0)


def _checked(read: Callable[[], ReadT], kind: str) -> ReadT:
    try:
        return read()
    except _UNREADABLE:
        # Without the traceback, which quotes a value.
        logger.error("the record of %s cannot be read", kind)  # noqa: TRY400 - see above
    raise UnreadableRecord


def _built(form: Any, value: Any) -> Any:
    inner, origin = get_args(form), get_origin(form)
    if NoneType in inner:
        return None if value is None else _built(inner[0], value)
    if isinstance(form, type) and is_dataclass(form):
        fields = _fields(form)
        _check(value.keys() == fields.keys())
        return form(**{name: _built(fields[name], value[name]) for name in fields})
    if form is bytes:
        raw = urlsafe_b64decode(f"{value}==")
        _check(_base64(raw) == value)
        return raw
    if origin in (list, Sequence):
        _check(isinstance(value, list))
        items = [_built(inner[0], item) for item in value]
        return items if origin is list else tuple(items)
    if form is float:
        check_moments(value)
    elif origin is Literal:
        _check(value in inner)
    elif form == Count:
        check_counts(value)
    else:
        _check(type(value) is (dict if origin in (dict, Mapping) else form))
    return value


@cache
def _fields(form: type) -> dict[str, Any]:
    return get_type_hints(form, include_extras=True)


def _check(is_right: object) -> None:
    if not is_right:
        msg = "not a value of this form"
        raise ValueError(msg)


def _base64(value: object) -> str:
    if not isinstance(value, bytes):
        msg = f"{type(value).__name__} is not JSON"
        raise TypeError(msg)
    return urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def _finite(text: str) -> float:
    number = float(text)
    _check(isfinite(number))
    return number


# What it reads can be written again.
_JSON: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
