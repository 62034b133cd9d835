"""Passwords: hashed with argon2id, verified without ever raising, in threads of their own.

A verification costs the same whatever its arguments are: where the stored hash is missing or unusable, or the password
could not have been set, a decoy is verified in its place.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, Final, TypeVar

from fastapi_guard.auth.conversion import check_hooks
from fastapi_guard.exceptions import ConfigurationError, MissingExtraError
from fastapi_guard.login.password_policy import PasswordPolicy
from fastapi_guard.stores.arguments import check_numbers

try:
    from passlib.context import CryptContext
except ImportError:
    raise MissingExtraError("libpass", "passwords") from None

__all__ = ["PasswordHasher", "PasswordPolicy"]

ResultT = TypeVar("ResultT")

_MAX_PASSWORD_BYTES: Final = 4096  # libpass accepts no more
# Settings of libpass for the rounds of a scheme.
_ROUNDS: Final = ("rounds", "default_rounds", "min_rounds", "max_rounds", "time_cost")
# What bcrypt raises for more than 72 bytes and for NUL, in words of our own.
_UNFIT: Final = "the password is too long for its hash, or has a character that cannot be hashed"


class PasswordHasher:
    """Hash passwords and verify them, by schemes of libpass.

    argon2id allocates 64 MiB for each hash in the making, so no more than ``workers`` are made at a time, and none on
    the event loop. The threads belong to the process that uses them: a process that is forked starts its own.
    """

    def __init__(
        self,
        schemes: Collection[str] = ("argon2", "bcrypt"),
        *,
        settings: Mapping[str, Any] | None = None,
        max_password_bytes: int = 1024,
        workers: int = 4,
    ) -> None:
        """Hash by the first of ``schemes``, and verify by each of them.

        Args:
            schemes: Names of libpass. The first makes new hashes, and needs a cost that is set. A hash of another one
                is outdated.
            settings: Settings of libpass, such as ``{"argon2__time_cost": 4}``. A hash with other settings is outdated.
                Where a scheme has none here, so is a hash with fewer rounds than a new one has.
            max_password_bytes: A longer password is wrong, and cannot be set; at most 4096.
            workers: How many hashes are made at a time.

        Raises:
            ConfigurationError: A scheme or a setting is not known, the first scheme has no cost, a number is out of
                range, or a subclass overrides an ``async def`` by a ``def``, or the reverse.
        """
        check_hooks(self, hash=True, verify=True, verify_and_update=True, identifies=False)
        check_numbers(1, max_password_bytes=max_password_bytes, workers=workers)
        if isinstance(schemes, str) or not isinstance(schemes, Collection) or not schemes:
            msg = 'schemes is a list of names of libpass, such as ["argon2", "bcrypt"]'
            raise ConfigurationError(msg)
        if max_password_bytes > _MAX_PASSWORD_BYTES:
            msg = f"max_password_bytes is at most {_MAX_PASSWORD_BYTES}"
            raise ConfigurationError(msg)
        try:
            self._context = _context(list(schemes), settings or {})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            msg = f"libpass does not accept these schemes and settings: {error}"
            raise ConfigurationError(msg) from error
        new = self._context.handler()
        if "rounds" not in new.setting_kwds:
            msg = (
                f"the first of schemes makes new hashes, and passwords hashed by {new.name} are guessed fast:"
                f' write ["argon2", "{new.name}"], which verifies old ones'
            )
            raise ConfigurationError(msg)
        self._max_password_bytes = max_password_bytes
        self._workers = workers
        self._process: _Process | None = None
        self._decoy: str | None = None

    async def hash(self, password: str | bytes) -> str:
        """Return a new hash of ``password``.

        Raises:
            ValueError: It is too long, or has a character that cannot be hashed.
        """
        return await self._in_pool(partial(self._hash, self._checked(password)))

    async def verify(self, password: str | bytes, hash: str | None) -> bool:  # noqa: A002 - what it is
        """Return whether ``hash`` is of ``password``, for any bytes of either; ``None`` is the hash of no password."""
        return await self._in_pool(lambda: self._verify(password, hash)[0])

    async def verify_and_update(
        self,
        password: str | bytes,
        hash: str | None,  # noqa: A002 - what it is
    ) -> tuple[bool, str | None]:
        """Return whether ``hash`` is of ``password``, and where it is, a new one if it is outdated.

        An outdated hash costs the work of a new one too, whether the password is right or wrong.
        """
        return await self._in_pool(partial(self._verify_and_update, password, hash))

    def needs_rehash(self, hash: str) -> bool:  # noqa: A002 - what it is
        """Return whether ``hash`` is of another scheme or with other settings than a new one would be."""
        try:
            return bool(self._context.needs_update(hash))
        except Exception:  # noqa: BLE001 - libpass cannot read it
            return True

    def identifies(self, hash: str) -> bool:  # noqa: A002 - what it is
        """Return whether ``hash`` is a hash of one of the schemes, unlike a plain text or the beginning of a hash."""
        handler = self._context.identify(hash, resolve=True)
        try:
            # A text in plain, which a scheme may be too, has no parts.
            return handler is not None and (
                not hasattr(handler, "from_string") or bool(handler.from_string(hash).checksum)
            )
        except ValueError:
            return False

    def close(self) -> None:
        """Stop the threads. Another hash starts others: an application may be started again."""
        process, self._process = self._process, None
        if process is not None and process.pid == os.getpid():  # the threads of another process are not there
            process.pool.shutdown(wait=False, cancel_futures=True)

    async def _in_pool(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.wrap_future(self._here().pool.submit(work))

    def _here(self) -> "_Process":
        process = self._process
        # Threads do not survive a fork, and a lock may be locked in the child for good.
        if process is None or process.pid != os.getpid():
            process = self._process = _Process(self._workers)
        return process

    def _checked(self, password: str | bytes) -> bytes:
        raw = None
        with suppress(UnicodeEncodeError):  # it has the password in it, and is not part of what is raised
            raw = password.encode() if isinstance(password, str) else password
        if raw is None:
            raise ValueError(_UNFIT)
        if len(raw) > self._max_password_bytes:
            msg = f"the password has more than {self._max_password_bytes} bytes"
            raise ValueError(msg)
        return raw

    def _hash(self, password: bytes) -> str:
        try:
            return str(self._context.hash(password))
        except ValueError:
            raise ValueError(_UNFIT) from None

    def _verify(self, password: str | bytes, stored: str | None) -> tuple[bool, bool]:
        # Whether it is valid, and whether the stored hash could be verified at all.
        # The first verification of any kind makes the decoy, so that it does not tell one kind from another.
        decoy = self._decoy_hash()
        if stored is not None:
            try:
                return bool(self._context.verify(self._checked(password), stored)), True
            except Exception:  # noqa: BLE001, S110 - libpass raises before it works: the work is still to be done
                pass
        self._context.verify(b"", decoy)
        return False, False

    def _verify_and_update(self, password: str | bytes, stored: str | None) -> tuple[bool, str | None]:
        valid, verified = self._verify(password, stored)
        if stored is None or not verified or not self.needs_rehash(stored):
            return valid, None
        newer = None
        with suppress(ValueError):  # valid for the old scheme, and not for the new one
            newer = self._hash(self._checked(password))
        return valid, newer if valid else None

    def _decoy_hash(self) -> str:
        with self._here().lock:
            if self._decoy is None:
                self._decoy = self._hash(secrets.token_urlsafe(24).encode())
            return self._decoy


class _Process:
    """The threads of one process, and the lock under which they make the decoy."""

    def __init__(self, workers: int) -> None:
        """Start threads as they are needed, at most so many."""
        self.pid: int = os.getpid()
        self.lock = Lock()
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="fastapi_guard_passwords")


def _context(schemes: list[str], settings: Mapping[str, Any]) -> CryptContext:
    context = CryptContext(schemes=schemes, deprecated="auto", **settings)
    # libpass compares the rounds of a hash with settings alone, and not with the default of a new one.
    least: dict[str, Any] = {}
    for scheme in schemes:
        configured = {name.rpartition("__")[2] for name in settings if name.startswith(f"{scheme}__")}
        rounds = getattr(context.handler(scheme), "default_rounds", None)
        if rounds is not None and configured.isdisjoint(_ROUNDS):
            least[f"{scheme}__min_rounds"] = rounds
    return CryptContext(schemes=schemes, deprecated="auto", **settings, **least)
