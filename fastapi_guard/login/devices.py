"""Devices of a user: a message about the first login on a new one, and devices that need no second step for a while."""

import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fastapi import Response
from starlette.requests import HTTPConnection

from fastapi_guard.events import Event, EventCallback, checked, publish
from fastapi_guard.exceptions import ConfigurationError, Forbidden, ServiceUnavailable
from fastapi_guard.login.client import Client
from fastapi_guard.login.cookies import CookieSettings, cookie_in, cookie_name
from fastapi_guard.login.messages import Message
from fastapi_guard.login.outcome import Complete
from fastapi_guard.login.state import digest_of
from fastapi_guard.login.users import User
from fastapi_guard.stores.arguments import clock_of, instance_of, store_of
from fastapi_guard.stores.bounds import seconds_of
from fastapi_guard.stores.kinds import DEVICE
from fastapi_guard.stores.protocol import Record, Store
from fastapi_guard.stores.values import RecordForm, UnreadableRecord, check_moments, decoded

_ID_BYTES: Final = 32
_LONGEST: Final = timedelta(days=90)
_REMEMBERED_SECONDS: Final = 90 * 86_400
_WRITTEN_EVERY_SECONDS: Final = 86_400
_MOST: Final = 20
_ATTEMPTS: Final = 10
# The names that user agents have, a later one only where no earlier one is there.
_BROWSERS: Final = {"Edg": "Edge", "OPR": "Opera", "Firefox": "Firefox", "Chrome": "Chrome", "Safari": "Safari"}
_SYSTEMS: Final = ("Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux")


class KnownDevices:
    """The devices on which a user has logged in, by address and user agent: one record a user, of 20 devices."""

    def __init__(self, store: Store, name: str, on_event: EventCallback | None) -> None:
        """Keep them in ``store``, for the Login of this ``name``."""
        self._store = store
        self._name = name
        self._on_event = on_event

    async def see(self, user: User, client: Client, now: float) -> Message | None:
        """Store that a user logged in on a device; return the message to the user where it is a new one.

        The first device of a user is not announced.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        if client == Client():
            return None
        key = f"{DEVICE}known:{digest_of(f'{self._name}|{user.subject_id}')}"
        device = digest_of(f"{client.address}|{client.agent}")[:32]
        for _ in range(_ATTEMPTS):
            [record] = await self._store.get(key)
            seen = {} if record is None else _seen_in(record)
            if now - seen.get(device, 0) < _WRITTEN_EVERY_SECONDS:
                return None
            latest = sorted({**seen, device: now}.items(), key=lambda item: item[1])[-_MOST:]
            value = json.dumps(dict(latest), separators=(",", ":")).encode("ascii")
            new = Record(key, value, None, now + _REMEMBERED_SECONDS)
            stored = self._store.add(new) if record is None else self._store.replace(key, record, new)
            if await stored:
                return None if record is None or device in seen else self._announced(user, client)
        raise ServiceUnavailable(reason="contended")

    def _announced(self, user: User, client: Client) -> Message | None:
        publish(Event("device_new", self._name, subject=user.subject_id), self._on_event)
        if user.email is None or not user.email_verified:
            return None
        return Message(kind="new_device", address=user.email, user=user, detail=device_label(client))


@dataclass(frozen=True, slots=True)
class _Trust:
    """The value of the record of a trusted device: who trusts it, and the ``credentials_version`` then."""

    subject: str
    version: int


_TRUST: Final = RecordForm(_Trust, "a trusted device")


class TrustedDevices:
    """Devices that a user trusts: a second step there is not needed again until the time is over.

    A change of the user's password, factors or address ends the trust in all devices.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        lifetime: timedelta,
        *,
        clock: Callable[[], float] = time.time,
        on_event: EventCallback | None = None,
    ) -> None:
        """Trust a device for ``lifetime``, at most 90 days.

        Raises:
            ConfigurationError: It is not positive, or longer.
        """
        self._lifetime = seconds_of("trusted_devices", lifetime, positive=True)
        if self._lifetime > _LONGEST.total_seconds():
            msg = f"trusted_devices is at most {_LONGEST.days} days"
            raise ConfigurationError(msg)
        self._store = store_of("store", store)
        self._name = instance_of("name", name, str, "the name of the Login")
        self._clock = clock_of(clock)
        self._on_event = checked(on_event)
        self.cookie: CookieSettings = CookieSettings(name=cookie_name("device", name))

    async def trust(self, response: Response, outcome: Complete) -> None:
        """Trust the browser that receives ``response`` from now on.

        Raises:
            Forbidden: The login had no second step, or the trust in a device stood in for it.
            ServiceUnavailable: The store cannot be reached.
        """
        if outcome.trusted or not outcome.second:
            raise Forbidden(reason="no_second_step")
        user, raw = outcome.user, secrets.token_urlsafe(_ID_BYTES)
        value = _TRUST.encoded(_Trust(user.subject_id, user.credentials_version))
        await self._store.add(Record(self._key(raw), value, None, self._clock() + self._lifetime))
        publish(Event("device_trusted", self._name, subject=user.subject_id), self._on_event)
        self.cookie.set(response, raw, max_age=int(self._lifetime))

    async def are_trusted(self, user: User, connection: HTTPConnection | None) -> bool:
        """Return whether the browser that sent the request is one that ``user`` trusts.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        raw = None if connection is None else cookie_in(connection, self.cookie)
        if not raw:
            return False
        [record] = await self._store.get(self._key(raw))
        return _TRUST.read_or_none(record) == _Trust(user.subject_id, user.credentials_version)

    def _key(self, raw: str) -> str:
        return f"{DEVICE}trusted:{digest_of(f'{self._name}|{raw}')}"


def _seen_in(record: Record) -> dict[str, float]:
    def read(seen: dict[str, float]) -> dict[str, float]:
        check_moments(*seen.values())
        return seen

    try:
        return decoded(record.value, read, "the known devices of a user")
    except UnreadableRecord:
        # Not the first device: a message too many is better than none.
        return {}


def device_label(client: Client) -> str:
    """Return a device in words: a browser, a system, an address.

    The client chose its user agent: nothing of it but known names reaches a message.
    """
    agent = client.agent or ""
    browser = next((name for mark, name in _BROWSERS.items() if re.search(rf"\b{mark}\w*/", agent)), "A device")
    system = next((f" on {system}" for system in _SYSTEMS if system in agent), "")
    address = "" if client.address is None else f", {client.address}"
    return f"{browser}{system}{address}"
