"""Passwords: hashed with argon2id, verified without ever raising, in threads of their own.

A verification costs the same whatever it is asked: where the stored hash is missing or cannot be used, or the password
could not have been set, a hash that belongs to nobody is verified in its place.
"""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Final, TypeVar

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError

try:
    from passlib.context import CryptContext
except ImportError:
    raise MissingExtraError("libpass", "passwords") from None

ResultT = TypeVar("ResultT")

_MOST_PASSWORD_BYTES: Final = 4096  # libpass takes no more
_SHORT_PERIOD: Final = 8
# What bcrypt says of more than 72 bytes and of NUL, in words that are ours.
_UNFIT: Final = "the password is too long for its hash, or has a character that cannot be hashed"


class PasswordHasher:
    """Hash passwords and verify them, by schemes of libpass.

    argon2id holds 64 MiB for each hash in the making, so no more than ``workers`` are made at a time, and none on the
    event loop.
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
            schemes: Names of libpass. A hash of another than the first is due for replacement.
            settings: Settings of libpass, such as ``{"argon2__time_cost": 4}``. A hash with others is due too.
            max_password_bytes: A longer password is wrong, and cannot be set; at most 4096.
            workers: How many hashes are made at a time.

        Raises:
            ConfigurationError: A scheme or a setting is not known, or a number is out of range.
        """
        if isinstance(schemes, str) or not schemes:
            msg = 'schemes is a list of names of libpass, such as ["argon2", "bcrypt"]'
            raise ConfigurationError(msg)
        if not 1 <= max_password_bytes <= _MOST_PASSWORD_BYTES or workers < 1:
            msg = f"max_password_bytes is from 1 to {_MOST_PASSWORD_BYTES}, and workers at least 1"
            raise ConfigurationError(msg)
        try:
            self._context = CryptContext(schemes=list(schemes), deprecated="auto", **(settings or {}))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            msg = f"libpass does not take these schemes and settings: {error}"
            raise ConfigurationError(msg) from error
        self._max_password_bytes = max_password_bytes
        self._new_pool = partial(ThreadPoolExecutor, workers, thread_name_prefix="fastapi_guard_passwords")
        self._workers = self._new_pool()
        self._lock = Lock()
        self._nobody: str | None = None

    async def hash(self, password: str | bytes) -> str:
        """Return a new hash of ``password``.

        Raises:
            ValueError: It is too long, or has a character that cannot be hashed.
        """
        return await self._in_pool(partial(self._hash, self._checked(password)))

    async def verify(self, password: str | bytes, hash: str | None) -> bool:  # noqa: A002 - what it is
        """Return whether ``hash`` is of ``password``, for whatever bytes either is; ``None`` is nobody's hash."""
        return await self._in_pool(partial(self._verify, password, hash))

    async def verify_and_update(
        self,
        password: str | bytes,
        hash: str | None,  # noqa: A002 - what it is
    ) -> tuple[bool, str | None]:
        """Return whether ``hash`` is of ``password``, and where it is, a new one if it is outdated."""
        return await self._in_pool(partial(self._verify_and_update, password, hash))

    def needs_rehash(self, hash: str) -> bool:  # noqa: A002 - what it is
        """Return whether ``hash`` is of another scheme or with other settings than a new one would be."""
        try:
            return bool(self._context.needs_update(hash))
        except Exception:  # noqa: BLE001 - what libpass cannot read
            return True

    def close(self) -> None:
        """Stop the threads. Another hash starts others: an application may be started again."""
        stopped, self._workers = self._workers, self._new_pool()
        stopped.shutdown(wait=False, cancel_futures=True)

    async def _in_pool(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.wrap_future(self._workers.submit(work))

    def _checked(self, password: str | bytes) -> bytes:
        raw = None
        with suppress(UnicodeEncodeError):  # it holds the password, and is no part of what is raised
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

    def _verify(self, password: str | bytes, stored: str | None) -> bool:
        # Made by the first verification of any kind, so that it does not tell one kind from another.
        nobody = self._hash_of_nobody()
        if stored is not None:
            try:
                return bool(self._context.verify(self._checked(password), stored))
            except Exception:  # noqa: BLE001, S110 - libpass refuses before it works: the work is still to be done
                pass
        self._context.verify(b"", nobody)
        return False

    def _verify_and_update(self, password: str | bytes, stored: str | None) -> tuple[bool, str | None]:
        if not self._verify(password, stored):
            return False, None
        if stored is None or not self.needs_rehash(stored):
            return True, None
        try:
            return True, self._hash(self._checked(password))
        except ValueError:  # good for the old scheme, and nothing for the new one
            return True, None

    def _hash_of_nobody(self) -> str:
        with self._lock:
            if self._nobody is None:
                self._nobody = self._hash(secrets.token_urlsafe(24).encode())
            return self._nobody


@dataclass(frozen=True, kw_only=True, slots=True)
class PasswordPolicy:
    """What a password must be to be set (NIST SP 800-63B-4, 3.1.1.2). There are no rules of composition.

    Attributes:
        min_characters: 15 where the password is all there is, 8 beside a second factor.
        max_characters: At least 64, so that pass phrases fit.
        blocked: Passwords that are refused whatever their case: those of a leak, the name of the service. A few common
            ones are refused anyway.
    """

    min_characters: int = 15
    max_characters: int = 256
    blocked: Collection[str] = ()

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ConfigurationError: They are below what NIST asks for.
        """
        if self.min_characters < 8 or self.max_characters < max(64, self.min_characters):
            msg = "min_characters is at least 8, and max_characters at least 64"
            raise ConfigurationError(msg)
        object.__setattr__(self, "blocked", frozenset(map(_folded, (*_COMMON, *self.blocked))))

    def check(self, password: str, *context: str) -> None:
        """Refuse a password that may not be set.

        Args:
            password: As received: it is neither trimmed nor normalised.
            context: What the password must not be, such as the user's name.

        Raises:
            ValueError: With a text that may be shown to the user.
        """
        if len(password) < self.min_characters:
            msg = f"the password has fewer than {self.min_characters} characters"
            raise ValueError(msg)
        if len(password) > self.max_characters:
            msg = f"the password has more than {self.max_characters} characters"
            raise ValueError(msg)
        folded = _folded(password)
        if folded in self.blocked or folded in map(_folded, context) or _repeats(folded):
            msg = "the password is too easy to guess"
            raise ValueError(msg)


# Those of the lists of leaked passwords that are long enough to pass for a password here.
_COMMON: Final = (
    "password", "password1", "password123", "passwordpassword", "password12345678", "12345678", "123456789",
    "1234567890", "123456789012345", "1234567890123456", "0123456789abcdef", "qwertyuiop", "qwertyuiopasdfgh",
    "qwertyuiopasdfghjkl", "1qaz2wsx3edc4rfv", "1q2w3e4r5t6y7u8i", "q1w2e3r4t5y6u7i8", "iloveyou",
    "iloveyouiloveyou", "correcthorsebatterystaple", "correct horse battery staple", "letmeinletmeinletmein",
    "changeme", "changemechangeme", "administrator", "administrator123", "abcdefghijklmno", "abcdefghijklmnop",
    "abcdefghijklmnopqrstuvwxyz", "welcome123", "welcomewelcome", "sunshine", "football", "princess",
    "baseball", "superman", "trustno1",
)  # fmt: skip


def _folded(password: str) -> str:
    return unicodedata.normalize("NFKC", password).casefold()


def _repeats(text: str) -> bool:
    # "aaaaaaaaaaaaaaa", "abcabcabcabcabc": found again within itself doubled, after a few characters.
    return (text + text).index(text, 1) <= min(_SHORT_PERIOD, len(text) - 1)
