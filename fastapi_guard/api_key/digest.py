"""The digest that is stored instead of a key: HMAC-SHA256 with a salt of the key and a pepper of the deployment."""

import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping
from typing import Final, NamedTuple

from pydantic import SecretBytes, SecretStr

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.stores.hidden import HiddenBytes, revealed

SALT_BYTES = 16
DIGEST_BYTES = 32
PEPPERS_VARIABLE = "FASTAPI_GUARD_PEPPERS"

_MIN_PEPPER_BYTES: Final = 16
# Shorter than a pepper, so that a pepper in the place of its version is rejected, and not stored beside every key.
_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{1,15}")
_EXAMPLE: Final = 'peppers are secrets by version, such as {"2": "...", "1": "..."}'


class StoredDigest(NamedTuple):
    """The columns that are stored in place of the text of a key.

    Attributes:
        salt: Random bytes of this key.
        digest: HMAC-SHA256(salt + pepper, text of the key).
        pepper: The version of the pepper in it, ``None`` for none.
    """

    salt: bytes
    digest: bytes
    pepper: str | None


class Peppers:
    """The secrets of a deployment that go into each digest and are not in the database.

    New keys get the newest: the highest version where all are numbers, else the first. The older ones still verify.
    """

    __slots__ = ("_newest", "_secrets")

    def __init__(self, peppers: Mapping[str, str | bytes | SecretStr | SecretBytes] | None = None) -> None:
        """Use these secrets, by version: ``{"2": "...", "1": "..."}``.

        Raises:
            ConfigurationError: A version is not a short text, or a secret is too short. No version and no secret is in
                the message, since they may have been exchanged.
        """
        if not isinstance(peppers, Mapping | None):
            msg = f"{_EXAMPLE}, not {type(peppers).__name__}"
            raise ConfigurationError(msg)
        self._secrets = {
            _version(number, version): _secret(number, revealed(secret))
            for number, (version, secret) in enumerate((peppers or {}).items(), 1)
        }
        versions = list(self._secrets)
        if all(version.isdecimal() for version in versions):
            versions.sort(key=int, reverse=True)
        self._newest = versions[0] if versions else None

    @classmethod
    def from_environment(cls, variable: str = PEPPERS_VARIABLE) -> "Peppers":
        """Read the peppers from an environment variable: a JSON object, secrets by version. Not set: no peppers.

        Raises:
            ConfigurationError: It is not such an object.
        """
        text = os.environ.get(variable)
        if not text:
            return cls()
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not all(isinstance(secret, str) for secret in found.values()):
            msg = f'{variable} is a JSON object, secrets by version, such as {{"1": "..."}}'
            raise ConfigurationError(msg)
        return cls(found)

    def __bool__(self) -> bool:
        """Whether there is any pepper."""
        return bool(self._secrets)

    def __repr__(self) -> str:
        """Show the versions alone."""
        return f"Peppers(versions={list(self._secrets)})"

    def store(self, raw: str) -> StoredDigest:
        """Return what to store of a new key."""
        salt = secrets.token_bytes(SALT_BYTES)
        digest = self._digest(raw, salt, self._newest)
        return StoredDigest(HiddenBytes(salt), HiddenBytes(digest), self._newest)

    def matches(self, raw: str, stored: StoredDigest) -> bool:
        """Return whether ``stored`` was made of ``raw``, in constant time; an unknown pepper matches nothing."""
        known = stored.pepper is None or stored.pepper in self._secrets
        same = hmac.compare_digest(self._digest(raw, stored.salt, stored.pepper), stored.digest)
        return same and known

    def _digest(self, raw: str, salt: bytes, version: str | None) -> bytes:
        pepper = b"" if version is None else self._secrets.get(version, b"")
        # Not hmac.digest(): it releases the interpreter lock, and waits to get it back from a worker thread.
        return hmac.new(salt + pepper, raw.encode("ascii"), "sha256").digest()


# Compared where there is no row: the same work, and nothing matches it.
DECOY: Final = StoredDigest(HiddenBytes(SALT_BYTES), HiddenBytes(DIGEST_BYTES), None)


def _version(number: int, version: object) -> str:
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        msg = (
            f"{_EXAMPLE}: the version of pepper number {number} is not a text of 1 to 15 letters, digits,"
            ' ".", "_" and "-"; a secret belongs behind its version'
        )
        raise ConfigurationError(msg)
    return version


def _secret(number: int, secret: object) -> bytes:
    encoded = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    if not isinstance(encoded, bytes) or len(encoded) < _MIN_PEPPER_BYTES:
        msg = (
            f"pepper number {number} is shorter than {_MIN_PEPPER_BYTES} bytes: make one with"
            " python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
        raise ConfigurationError(msg)
    return encoded
