"""A file of keys: the current one signs, the next one is announced, retired ones still verify.

``JWTConfig(key=KeyFile("keys.json"))`` reads it again when it changes, in every worker, so that ``fastapi-guard jwk
rotate`` changes the key of a running application. The file is a JWK Set whose keys have a member ``status`` besides
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
from pathlib import Path
from typing import Any, Final, Literal, Self, cast

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OctKey, OKPKey, RSAKey

from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable
from fastapi_guard.jwt.algorithms import ASYMMETRIC
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.keys import check_key, public_jwks
from fastapi_guard.jwt.verification import VerificationKeys

logger: logging.Logger = logging.getLogger("fastapi_guard")

KeyAlgorithm = Literal["ES256", "ES384", "ES512", "RS256", "PS256", "Ed25519"]

_STATUSES: Final = ("current", "next", "retired")
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_RSA_BITS: Final = 3072
_OURS: Final = ("status", "retired_at")
# Whoever is not the owner, but for a group that reads: that is how a container's secrets are mounted.
_REFUSED_MODE: Final = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class _Content:
    """What the file held, and by what it is known to have changed."""

    stamp: tuple[int, int, int]
    keys: tuple[Key, ...]


class KeyFile:
    """Keys in a file that may change while the application runs.

    A change that cannot be read is logged, and the keys stay as they were.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        checked_every: timedelta = timedelta(seconds=1),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember where the keys are; nothing is read yet.

        Args:
            path: The file, which only its owner may write, and nobody else but a group may read.
            checked_every: How often the file is looked at, for whether it has changed.
            clock: Seconds, from any moment on.
        """
        self.path: Path = Path(path)
        self._checked_every = checked_every.total_seconds()
        self._clock = clock
        self._checked_at = float("-inf")
        self._content: _Content | None = None
        self._problem: ConfigurationError | None = None

    def for_algorithms(self, algorithms: Sequence[str]) -> "KeyFileSource":
        """Return the source of those keys that fit ``algorithms``, as a JWTConfig asks for it."""
        return KeyFileSource(self, tuple(algorithms))

    def keys(self) -> tuple[Key, ...] | None:
        """Return the keys, the current one first; ``None`` where they could never be read."""
        now = self._clock()
        if now - self._checked_at >= self._checked_every:
            self._checked_at = now
            try:
                self._content = self._read(self._content)
                self._problem = None
            except ConfigurationError as error:
                self._problem = error
                logger.error("%s; the keys stay as they are", error)  # noqa: TRY400 - the message says it all
        return None if self._content is None else self._content.keys

    def readable_keys(self) -> tuple[Key, ...]:
        """Return the keys, the current one first.

        Raises:
            ServiceUnavailable: They could never be read.
        """
        keys = self.keys()
        if keys is None:
            raise ServiceUnavailable(reason="keys_unreadable") from self._problem
        return keys

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public halves of all keys, as a JWK Set.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        return public_jwks(self._read(None).keys, ASYMMETRIC)

    def generate(self, algorithm: KeyAlgorithm = "ES256") -> None:
        """Make the file, with a current and a next key; mode 0600.

        Raises:
            ConfigurationError: There is a file, or it cannot be written.
        """
        entries = [_entry(new_key(algorithm), "current"), _entry(new_key(algorithm), "next")]
        with _Lock(self.path) as lock:
            if self.path.exists():
                msg = f"{self.path} exists: rotate it, or remove it yourself"
                raise ConfigurationError(msg)
            lock.replace(entries)

    def rotate(self, *, keep: timedelta = timedelta(days=1), algorithm: KeyAlgorithm | None = None) -> None:
        """Let the next key sign, announce a new one, and keep the public half of the current one among the retired.

        Rotate no more often than those who verify fetch the keys: they have to know the next key before it signs.

        Args:
            keep: How long a retired key still verifies: at least the lifetime of the tokens.
            algorithm: Of the new key; left out, that of the key that is next now.

        Raises:
            ConfigurationError: The file cannot be read or written, or another rotation is under way.
        """
        with _Lock(self.path) as lock:
            entries = self._entries()
            upcoming = next((entry for entry in entries if entry["status"] == "next"), None)
            if upcoming is None:
                msg = f"{self.path} has no next key"
                raise ConfigurationError(msg)
            now = time.time()
            rotated = [{**upcoming, "status": "current"}]
            rotated.append(_entry(new_key(algorithm or cast("KeyAlgorithm", upcoming["alg"])), "next"))
            for entry in entries:
                if entry["status"] == "current":
                    rotated.append(_retired(entry, now))
                elif entry["status"] == "retired" and entry.get("retired_at", 0) > now - keep.total_seconds():
                    rotated.append(entry)
            lock.replace(rotated)

    def _read(self, known: _Content | None) -> _Content:
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if known is not None and known.stamp == stamp:
                return known
        except OSError as error:
            msg = (
                f"the key file {self.path} cannot be read: {error.strerror}; make one with `fastapi-guard jwk generate`"
            )
            raise ConfigurationError(msg) from None
        if stat.S_IMODE(status.st_mode) & _REFUSED_MODE:
            msg = f"the key file {self.path} can be read or written by others: chmod 600 {self.path}"
            raise ConfigurationError(msg)
        entries = self._entries()
        entries.sort(key=lambda entry: _STATUSES.index(entry["status"]))
        return _Content(stamp, tuple(map(self._key, entries)))

    def _entries(self) -> list[dict[str, Any]]:
        try:
            entries = json.loads(self.path.read_bytes())["keys"]
            statuses = [entry["status"] for entry in entries]
        except (OSError, ValueError, TypeError, LookupError):
            msg = f"the key file {self.path} is no JWK Set whose keys have a status"
            raise ConfigurationError(msg) from None
        if statuses.count("current") != 1 or not set(statuses) <= set(_STATUSES):
            msg = f"the key file {self.path} has one current key, and others that are next or retired"
            raise ConfigurationError(msg)
        return cast("list[dict[str, Any]]", entries)

    def _key(self, entry: Mapping[str, Any]) -> Key:
        try:
            key = JWKRegistry.import_key({name: value for name, value in entry.items() if name not in _OURS})
            check_key(key, ASYMMETRIC)
        except (ValueError, TypeError, LookupError, JoseError):
            # What is wrong with a private key is not for a log.
            msg = f"the key file {self.path} has a key that cannot be used: {entry.get('kid')!r}"
            raise ConfigurationError(msg) from None
        return key


class KeyFileSource:
    """The keys of a KeyFile that fit a configuration's algorithms: a KeySource that can sign."""

    def __init__(self, file: KeyFile, algorithms: tuple[str, ...]) -> None:
        """Take the keys of ``file``."""
        self._file = file
        self._algorithms = algorithms
        self._keys: tuple[Key, ...] | None = None
        self._verification: VerificationKeys | None = None

    def peek(self) -> VerificationKeys | None:
        """Return the keys that verify, ``None`` where they could never be read."""
        keys = self._file.keys()
        if keys is not self._keys and keys is not None:
            self._keys, self._verification = keys, VerificationKeys(keys, self._algorithms)
        return self._verification

    async def load(self, header: Header | None = None) -> VerificationKeys:  # noqa: ARG002 - nothing more to look for
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


class _Lock:
    """The file that takes the place of the key file, and keeps a second rotation out while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = path.with_name(path.name + ".new")

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            msg = f"{self._new} exists: another rotation is under way, or one was interrupted; then remove it"
            raise ConfigurationError(msg) from None
        except OSError as error:
            msg = f"{self._new} cannot be written: {error.strerror}"
            raise ConfigurationError(msg) from None
        return self

    def replace(self, entries: list[dict[str, Any]]) -> None:
        with os.fdopen(os.dup(self._descriptor), "w", encoding="ascii") as file:
            json.dump({"keys": entries}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        self._new.replace(self._path)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._new.unlink(missing_ok=True)


def new_key(algorithm: KeyAlgorithm) -> Key:
    """Return a new private key for ``algorithm``.

    Raises:
        ConfigurationError: It is none of the asymmetric algorithms that a file can hold.
    """
    if algorithm in _CURVES:
        return ECKey.generate_key(_CURVES[algorithm], {"alg": algorithm})
    if algorithm in ("RS256", "PS256"):
        return RSAKey.generate_key(_RSA_BITS, {"alg": algorithm})
    if algorithm == "Ed25519":
        return OKPKey.generate_key("Ed25519", {"alg": algorithm})
    msg = f"a key file holds keys for ES256, ES384, ES512, RS256, PS256 or Ed25519, not for {algorithm}"
    raise ConfigurationError(msg)


def _entry(key: Key, status: str) -> dict[str, Any]:
    members = {**key.as_dict(private=True), "kid": key.thumbprint(), "use": "sig"}
    return {"status": status, **{name: value for name, value in members.items() if name != "key_ops"}}


def _retired(entry: Mapping[str, Any], now: float) -> dict[str, Any]:
    key = JWKRegistry.import_key({name: value for name, value in entry.items() if name not in _OURS})
    assert not isinstance(key, OctKey)  # noqa: S101 - the file has none
    members = {**key.as_dict(private=False), "kid": entry["kid"], "use": "sig", "alg": entry["alg"]}
    public = {name: value for name, value in members.items() if name != "key_ops"}
    return {"status": "retired", "retired_at": int(now), **public}
