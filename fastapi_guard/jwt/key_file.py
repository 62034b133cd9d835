"""KeyFile: signing keys in a file. The current key signs, the next one is announced, retired ones verify for a while.

``JWTConfig(key=KeyFile("keys.json"))`` reads it again when it changes, in every worker, so that ``fastapi-guard jwk
rotate`` changes the key of a running application. The file is a JWK Set whose keys have a member ``status`` as well
(RFC 7517 4 allows further members).
"""

import json
import logging
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, cast

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, shown
from fastapi_guard.jwt.algorithms import ASYMMETRIC
from fastapi_guard.jwt.atomic_file import locked, write
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.key_formats import import_jwk
from fastapi_guard.jwt.keys import check_key, public_jwks
from fastapi_guard.jwt.verification_keys import VerificationKeys
from fastapi_guard.stores.arguments import clock_of
from fastapi_guard.stores.bounds import seconds_of

logger: logging.Logger = logging.getLogger("fastapi_guard")

KeyAlgorithm = Literal["ES256", "ES384", "ES512", "RS256", "PS256", "Ed25519"]

_STATUSES: Final = ("current", "next", "retired")
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_RSA_BITS: Final = 3072
_OUR_MEMBERS: Final = ("status", "retired_at", "verifies_until")
# Nothing for others, and reading at most for the group: that is how secrets are mounted into a container.
_REFUSED_MODE: Final = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class _Content:
    """The content of a file.

    Attributes:
        stamp: Changes with the file.
        keys: The keys, the current one first.
        until: For each key, the end of its use in seconds since the epoch; infinite unless it is retired.
    """

    stamp: tuple[int, int, int]
    keys: tuple[Key, ...]
    until: tuple[float, ...]

    def at(self, now: float) -> "_Content":
        """Return the content without the retired keys whose time is over; the same object if there are none."""
        if now < min(self.until):
            return self
        left = [(key, until) for key, until in zip(self.keys, self.until, strict=True) if now < until]
        return _Content(self.stamp, tuple(key for key, _ in left), tuple(until for _, until in left))


class KeyFile:
    """Keys in a file that may change while the application runs.

    If a change cannot be read, it is logged and the keys stay as they were.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        checked_every: timedelta = timedelta(seconds=1),
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Use the keys at ``path``; nothing is read yet.

        Args:
            path: The file. Only its owner may write it, and only the owner and a group may read it.
            checked_every: How often the file is checked for a change.
            clock: Seconds, from any moment on.
            wall_clock: Seconds since the epoch: when retired keys cease to verify.
        """
        if not isinstance(path, str | os.PathLike):
            msg = f"path is the path of a file, not {type(path).__name__}"
            raise ConfigurationError(msg)
        self.path: Path = Path(path)
        self._checked_every = seconds_of("checked_every", checked_every)
        self._clock = clock_of(clock)
        self._wall_clock = clock_of(wall_clock, "wall_clock")
        self._checked_at = float("-inf")
        self._content: _Content | None = None
        self._problem: ConfigurationError | None = None

    def for_algorithms(self, algorithms: Sequence[str]) -> "KeyFileSource":
        """Return the source of the keys that fit ``algorithms``, for a JWTConfig."""
        return KeyFileSource(self, tuple(algorithms))

    def keys(self) -> tuple[Key, ...] | None:
        """Return the keys, the current one first; ``None`` if they could never be read."""
        now = self._clock()
        if now - self._checked_at >= self._checked_every:
            self._checked_at = now
            try:
                self._content = self._read(self._content)
                self._problem = None
            except ConfigurationError as error:
                self._problem = error
                effect = (
                    "requests that need a key are refused (503)"
                    if self._content is None
                    else "the keys stay as they are"
                )
                logger.error("%s; %s", error, effect)  # noqa: TRY400 - the message is complete
        if self._content is None:
            return None
        self._content = self._content.at(self._wall_clock())
        return self._content.keys

    def readable_keys(self) -> tuple[Key, ...]:
        """Return the keys, the current one first.

        Raises:
            ServiceUnavailable: They could never be read.
        """
        keys = self.keys()
        if keys is None:
            failure = ServiceUnavailable(reason="keys_unreadable")
            # Below the traceback of an application that does not start; no response has it.
            failure.add_note(str(self._problem))
            raise failure from self._problem
        return keys

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public halves of all keys, as a JWK Set.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        return public_jwks(self._read(None).at(self._wall_clock()).keys, ASYMMETRIC)

    def generate(self, algorithm: KeyAlgorithm = "ES256") -> None:
        """Create the file, with a current and a next key; mode 0600.

        Raises:
            ConfigurationError: The file exists, or cannot be written.
        """
        entries = [_entry(new_key(algorithm), "current"), _entry(new_key(algorithm), "next")]
        with locked(self.path):
            if self.path.exists():
                msg = f"{self.path} exists: rotate it, or remove it yourself"
                raise ConfigurationError(msg)
            write(self.path, {"keys": entries})

    def rotate(self, *, keep: timedelta = timedelta(days=1), algorithm: KeyAlgorithm | None = None) -> None:
        """Sign with the next key, announce a new one, and retire the current one, of which the public half is kept.

        Rotate less often than verifiers fetch the keys: they need the next key before it signs. Rotations at the same
        time, in several processes, happen one after the other.

        Args:
            keep: How long retired keys verify, from their retirement on: at least the lifetime of the tokens. It is
                applied to keys that were retired before too, where it is shorter than theirs.
            algorithm: The algorithm of the new key; by default that of the key that is next now.

        Raises:
            ConfigurationError: The file cannot be read or written, one of its keys lacks a name or an algorithm, or
                ``keep`` is not a duration.
        """
        kept = seconds_of("keep", keep)
        path = Path(os.path.realpath(self.path))  # a symbolic link stays one
        with locked(path):
            entries = self._entries()
            upcoming = next((entry for entry in entries if entry["status"] == "next"), None)
            if upcoming is None:
                msg = f"{self.path} has no next key"
                raise ConfigurationError(msg)
            now = self._wall_clock()
            rotated = [{**upcoming, "status": "current"}]
            try:
                rotated.append(_entry(new_key(algorithm or cast("KeyAlgorithm", upcoming["alg"])), "next"))
                retired = [_retired(entry, now) for entry in entries if entry["status"] == "current"]
            except (TypeError, LookupError, JoseError):
                msg = f"the key file {self.path} has a key without a kty, kid or alg, and cannot be rotated"
                raise ConfigurationError(msg) from None
            for entry in [*retired, *(entry for entry in entries if entry["status"] == "retired")]:
                until = min(_until(entry), entry.get("retired_at", now) + kept)
                if until > now:
                    rotated.append({**entry, "verifies_until": until})
            write(path, {"keys": rotated})

    def _read(self, known: _Content | None) -> _Content:
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if known is not None and known.stamp == stamp:
                return known
        except OSError as error:
            # A relative path is one of the folder in which the server was started.
            msg = f"the key file {self.path.absolute()} cannot be read: {error.strerror}"
            if isinstance(error, FileNotFoundError):
                msg += f"; create it with `fastapi-guard jwk generate {self.path}`"
            raise ConfigurationError(msg) from None
        if stat.S_IMODE(status.st_mode) & _REFUSED_MODE:
            msg = f"the key file {self.path} can be read or written by others: chmod 600 {self.path}"
            raise ConfigurationError(msg)
        entries = self._entries()
        entries.sort(key=lambda entry: _STATUSES.index(entry["status"]))
        return _Content(stamp, tuple(map(self._key, entries)), tuple(map(_until, entries)))

    def _entries(self) -> list[dict[str, Any]]:
        try:
            entries: list[dict[str, Any]] = json.loads(self.path.read_bytes())["keys"]
            statuses = [entry["status"] for entry in entries]
            for entry in entries:
                _check_times(entry)
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            msg = f"the key file {self.path} is not a JWK Set whose keys have a status"
            raise ConfigurationError(msg) from None
        if statuses.count("current") != 1 or not set(statuses) <= set(_STATUSES):
            msg = f"the key file {self.path} has one current key, and others that are next or retired"
            raise ConfigurationError(msg)
        return entries

    def _key(self, entry: Mapping[str, Any]) -> Key:
        try:
            key = _imported(entry)
            check_key(key, ASYMMETRIC)
        except (ValueError, TypeError, LookupError, JoseError):
            # The details of a private key are not for a log.
            msg = f"the key file {self.path} has a key that cannot be used: {entry.get('kid')!r}"
            raise ConfigurationError(msg) from None
        return key


class KeyFileSource:
    """The keys of a KeyFile that fit the algorithms of a configuration: a KeySource that can sign."""

    def __init__(self, file: KeyFile, algorithms: tuple[str, ...]) -> None:
        """Use the keys of ``file``."""
        self._file = file
        self._algorithms = algorithms
        self._keys: tuple[Key, ...] | None = None
        self._verification: VerificationKeys | None = None

    def peek(self) -> VerificationKeys | None:
        """Return the keys that verify, ``None`` if they could never be read."""
        keys = self._file.keys()
        if keys is not self._keys and keys is not None:
            self._keys, self._verification = keys, VerificationKeys(keys, self._algorithms)
        return self._verification

    async def load(self, header: Header | None = None) -> VerificationKeys:  # noqa: ARG002 - there is no other place to look
        """Return the keys that verify.

        Raises:
            ServiceUnavailable: They could never be read.
        """
        self._file.readable_keys()
        keys = self.peek()
        assert keys is not None  # noqa: S101 - they are readable
        return keys

    def own_keys(self) -> tuple[Key, ...]:
        """Return the keys, the one that signs first.

        Raises:
            ServiceUnavailable: They could never be read.
        """
        return self._file.readable_keys()


def new_key(algorithm: KeyAlgorithm) -> Key:
    """Return a new private key for ``algorithm``.

    Raises:
        ConfigurationError: It is not one of the asymmetric algorithms that a file can have.
    """
    if algorithm in _CURVES:
        return ECKey.generate_key(_CURVES[algorithm], {"alg": algorithm})
    if algorithm in ("RS256", "PS256"):
        return RSAKey.generate_key(_RSA_BITS, {"alg": algorithm})
    if algorithm == "Ed25519":
        return OKPKey.generate_key("Ed25519", {"alg": algorithm})
    msg = f"a key file holds keys for ES256, ES384, ES512, RS256, PS256 or Ed25519, not for {shown(algorithm)}"
    raise ConfigurationError(msg)


def _entry(key: Key, status: str) -> dict[str, Any]:
    members = {**key.as_dict(private=True), "kid": key.thumbprint(), "use": "sig"}
    return {"status": status, **{name: value for name, value in members.items() if name != "key_ops"}}


def _imported(entry: Mapping[str, Any]) -> Key:
    return import_jwk({name: value for name, value in entry.items() if name not in _OUR_MEMBERS})


def _check_times(entry: Mapping[str, Any]) -> None:
    for name in ("retired_at", "verifies_until"):
        if type(entry.get(name, 0)) not in (int, float):
            raise TypeError(name)


def _until(entry: Mapping[str, Any]) -> float:
    """Return until when a key verifies; without an end, until it is removed."""
    return float(entry.get("verifies_until", inf))


def _retired(entry: Mapping[str, Any], now: float) -> dict[str, Any]:
    key = _imported(entry)
    assert not isinstance(key, OctKey)  # noqa: S101 - the file has no symmetric key
    members = {**key.as_dict(private=False), "kid": entry["kid"], "use": "sig", "alg": entry["alg"]}
    public = {name: value for name, value in members.items() if name != "key_ops"}
    return {"status": "retired", "retired_at": int(now), **public}
