"""Secrets that are sent to an address: links and codes, each valid once.

A record is found by a handle, which the browser that asked keeps (a cookie, or a pending login), or by the link itself.
A link has 256 random bits. A code has eight digits, so it is stored as an HMAC with a configured key, works with its
handle alone, and has five tries in all.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Final, Literal

from fastapi_guard.jwt.compact import MalformedToken, decode_base64url, encode_base64url
from fastapi_guard.login.hooks import or_logged
from fastapi_guard.login.keyring import Keyring
from fastapi_guard.login.lookup import ended_by
from fastapi_guard.stores.arguments import clock_of
from fastapi_guard.stores.protocol import Record, Store
from fastapi_guard.stores.values import Count, RecordForm

Purpose = Literal["verify_address", "reset_password", "log_in", "second_factor", "change_address", "invitation"]

LIFETIMES: Final[Mapping[Purpose, timedelta]] = {
    "verify_address": timedelta(hours=24),
    "reset_password": timedelta(minutes=15),
    "log_in": timedelta(minutes=10),
    "second_factor": timedelta(minutes=10),
    "change_address": timedelta(hours=24),
    "invitation": timedelta(days=7),
}
CODE_DIGITS: Final = 8
_KEY: Final = "mailed:"
_NAME_BYTES: Final = 16
_SECRET_BYTES: Final = 32
_TOKEN_CHARACTERS: Final = 64  # 48 bytes: one spelling, without padding
_TRIES: Final = 5
_ATTEMPTS: Final = 5
_SPACES: Final = str.maketrans("", "", " \t\r\n-")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mailed:
    """The use that a mailed secret is for.

    Attributes:
        purpose: The one thing that it can be used for.
        subject: Whose it is; empty where there is no user yet.
        address: Where it was sent.
        version: The ``credentials_version`` of the user when it was sent. A change of it ends the secret.
        payload: What is needed to go on, JSON throughout.
    """

    purpose: Purpose
    subject: str
    address: str
    version: int = 0
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Issued:
    """A new secret, for the message.

    Attributes:
        token: The secret of a link.
        code: Digits to type in the browser that asked.
        expires_at: Seconds since the epoch.
    """

    token: str = field(repr=False)
    code: str = field(repr=False)
    expires_at: float


@dataclass(frozen=True, slots=True)
class Presented:
    """A secret that was presented and is right, and not used yet.

    Attributes:
        mailed: What it is for.
        is_same_browser: Whether its handle was presented too.
        record: Its record in the store.
    """

    mailed: Mailed
    is_same_browser: bool
    record: Record = field(repr=False)


@dataclass(frozen=True, slots=True)
class _State:
    """The value of a record."""

    login: str
    mailed: Mailed
    link: str
    code: str
    tries: Count = 0
    sent: Count = 1


_STATE: Final = RecordForm(_State, "a mailed secret")


class MailedSecrets:
    """Issues links and codes, and verifies them."""

    def __init__(
        self,
        store: Store,
        keys: Keyring,
        *,
        name: str = "login",
        lifetimes: Mapping[Purpose, timedelta] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep records in ``store``, with HMACs by ``keys``.

        Args:
            store: Where the records are.
            keys: Made by ``mailing_keys``.
            name: The name of the Login. A secret of one Login is invalid for another on the same store.
            lifetimes: Other lifetimes than ``LIFETIMES``, by purpose.
            clock: Seconds since the epoch.
        """
        self._store = store
        self._keys = keys
        self._name = name
        self._lifetimes = {**LIFETIMES, **(lifetimes or {})}
        self._clock = clock_of(clock)

    async def issue(self, mailed: Mailed, handle: str | None = None, *, most: int | None = None) -> Issued | None:
        """Return a new secret; that of before under the same handle is invalid, and its tries stay counted.

        Args:
            mailed: What it is for.
            handle: Known to the browser that asked, such as the hash of its cookie; ``None`` where there is none, and
                the link alone works.
            most: How many may be issued under one handle; ``None`` is returned beyond.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        name = self._located(mailed.purpose, handle if handle is not None else secrets.token_urlsafe(_SECRET_BYTES))
        secret, code = secrets.token_bytes(_SECRET_BYTES), f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
        token = encode_base64url(name + secret).decode("ascii")
        expires_at = self._clock() + self._lifetimes[mailed.purpose].total_seconds()
        macs = (self._mac(mailed.purpose, name, "link", token), self._mac(mailed.purpose, name, "code", code))
        state = _State(self._name, mailed, *macs)
        owner = self._owner(mailed.subject or mailed.address)
        for _ in range(_ATTEMPTS):
            record = Record(_key(name), _STATE.encoded(state), owner, expires_at)
            if await self._store.add(record):
                return Issued(token=token, code=code, expires_at=expires_at)
            [before] = await self._store.get(record.key)
            if before is None:
                continue
            counted = _STATE.read_or_none(before)
            # One that cannot be read may have been the last.
            if counted is None or (most is not None and counted.sent >= most):
                return None
            # Other codes must not mean other tries.
            state = replace(state, tries=counted.tries, sent=counted.sent + 1)
            if await self._store.replace(record.key, before, replace(record, value=_STATE.encoded(state))):
                return Issued(token=token, code=code, expires_at=expires_at)
        return None

    async def present(
        self, purpose: Purpose, *, token: object = None, code: object = None, handle: str | None = None
    ) -> Presented | None:
        """Return the secret that a client presents, unused; ``None`` where it is wrong.

        Args:
            purpose: What it has to be for.
            token: Of a link. It is found with or without the handle.
            code: Where there is no token: digits, which are found by the handle alone. A wrong one counts.
            handle: Of the browser.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        own = None if handle is None else self._located(purpose, handle)
        name = own if token is None else _name_in(token)
        if name is None:
            return None
        [record] = await self._store.get(_key(name))
        state = _STATE.read_or_none(record)
        if record is None or state is None or state.login != self._name or state.mailed.purpose != purpose:
            return None
        if token is not None:
            matches = self._keys.matches(state.link, purpose, name.hex(), "link", str(token))
        else:
            counted = replace(record, value=_STATE.encoded(replace(state, tries=state.tries + 1)))
            # Counted before it is compared, so that of many at the same time no more than five are.
            if state.tries >= _TRIES or not await self._store.replace(record.key, record, counted):
                return None
            record = counted
            matches = self._keys.matches(state.code, purpose, name.hex(), "code", _digits(code))
        if not matches:
            return None
        return Presented(state.mailed, is_same_browser=name == own, record=record)

    async def use(self, presented: Presented) -> bool:
        """Use a secret up, and end the others of its user; of several callers one receives ``True``.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        if not await self._store.delete(presented.record.key):
            return False
        mailed = presented.mailed
        if mailed.subject:
            await self.end(mailed.subject)
            return True
        # An address without a user: invitations to other tenants stay. The user cannot request another one: where the
        # others cannot be ended, this one works all the same.
        with or_logged("the other secrets of an address could not be ended"):
            for record in await self._store.find(self._owner(mailed.address)):
                other = _STATE.read_or_none(record)
                if other is None or _kind(other.mailed) == _kind(mailed):
                    await self._store.delete(record.key)
        return True

    async def put_back(self, presented: Presented) -> None:
        """Let a secret be used again that led to nothing, where the store can be reached."""
        with or_logged("a mailed secret that led to nothing could not be put back"):
            await self._store.add(presented.record)

    async def use_code(self, mailed: Mailed, code: object, handle: str) -> bool:
        """Use up the code that was sent for ``mailed`` under ``handle``, and end the other secrets of its user.

        Returns:
            ``False`` where it is wrong, which counts, or no try is left. Of several callers with the right one, one
            receives ``True``.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        name = self._located(mailed.purpose, handle)
        owned = {record.key: record for record in await self._store.find(self._owner(mailed.subject))}
        record = owned.pop(_key(name), None)
        state = _STATE.read_or_none(record)
        if record is None or state is None or state.tries >= _TRIES:
            return False
        is_right = self._keys.matches(state.code, mailed.purpose, name.hex(), "code", _digits(code))
        is_right = is_right and state.mailed == mailed
        # One write counts the try and uses the code up; without it the code counts as wrong, right or not. An expiry
        # at the epoch is over by the clock of every worker.
        tried = replace(record, value=_STATE.encoded(replace(state, tries=state.tries + 1)))
        written = replace(tried, expires_at=0.0) if is_right else tried
        if not await self._store.replace(record.key, record, written) or not is_right:
            return False
        await ended_by(partial(self._store.delete, key) for key in owned)
        return True

    async def end(self, subject: str) -> None:
        """End every secret of ``subject``, of this Login.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        found = await self._store.find(self._owner(subject))
        await ended_by(partial(self._store.delete, record.key) for record in found)

    async def waiting(self, purpose: Purpose, handle: str) -> Mailed | None:
        """Return what was issued under ``handle`` and is not used, to be issued again.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        [record] = await self._store.get(_key(self._located(purpose, handle)))
        state = _STATE.read_or_none(record)
        # The name of the Login and the purpose are part of the key.
        return None if state is None else state.mailed

    async def is_waiting(self, subject: str) -> bool:
        """Return whether ``subject`` has a secret that is valid.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return bool(await self._store.find(self._owner(subject)))

    def _located(self, purpose: Purpose, handle: str) -> bytes:
        named = json.dumps([self._name, purpose, handle]).encode("ascii")
        return sha256(named).digest()[:_NAME_BYTES]

    def _owner(self, subject: str) -> str:
        return _KEY + sha256(json.dumps([self._name, subject]).encode("ascii")).hexdigest()

    def _mac(self, purpose: Purpose, name: bytes, kind: str, secret: str) -> str:
        return self._keys.mac(purpose, name.hex(), kind, secret)


def _kind(mailed: Mailed) -> tuple[str, object]:
    return mailed.purpose, mailed.payload.get("tenant_id")


def _key(name: bytes) -> str:
    return _KEY + name.hex()


def _name_in(token: object) -> bytes | None:
    if not isinstance(token, str) or len(token) != _TOKEN_CHARACTERS or not token.isascii():
        return None
    try:
        return decode_base64url(token.encode("ascii"))[:_NAME_BYTES]
    except MalformedToken:
        return None


def _digits(code: object) -> str:
    # What cannot be a code is compared all the same, as a text that matches nothing.
    return code.translate(_SPACES) if isinstance(code, str) and len(code) <= 4 * CODE_DIGITS else ""
