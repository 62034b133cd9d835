"""The entries of a mapping of API keys, checked as a whole: each mistake is named, with its place and without a key."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from fastapi_guard.claims import Claims, copied
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.scopes import Scope

MIN_KEY_LENGTH = 16
FIELDS = ("user_id", "tenant_id", "is_admin", "scopes", "expires_at", "metadata")

_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
# Where something stands: the names on the way to it, and a number for a key, which is not shown.
Path = tuple[str | int, ...]


class StaticKey(NamedTuple):
    """A key of the configuration.

    Attributes:
        digest: SHA-256 of the key.
        claims: What it says.
        expires_at: Seconds since the epoch, ``None`` for never.
    """

    digest: bytes
    claims: Claims
    expires_at: float | None

    def __repr__(self) -> str:
        """Show whose key it is, and nothing of the key."""
        return f"StaticKey(claims={self.claims!r}, expires_at={self.expires_at!r})"


class Entries:
    """Reads the content of a configuration and collects what is wrong with it.

    Attributes:
        source: The name of the file, empty where there is none.
        lines: The line of each path in the file, as far as that is known.
        sendable: Whether a key can come by the scheme.
        mistakes: What was found so far.
    """

    def __init__(self, source: str = "", lines: Mapping[Path, int] | None = None) -> None:
        """Name places in ``source`` by ``lines``."""
        self.source: str = source
        self.lines: Mapping[Path, int] = lines or {}
        self.sendable: Callable[[str], bool] = str.isascii
        self.mistakes: list[str] = []

    def read(self, content: object) -> list[StaticKey]:
        """Return the keys under ``api_keys`` in ``content``.

        Raises:
            ConfigurationError: Something is wrong; the message has a line for each mistake.
        """
        if not isinstance(content, Mapping):
            self.note((), "is not a mapping with api_keys in it")
            content = {"api_keys": {}}
        for name in content:
            if name != "api_keys":
                self.note((str(name),), "is not known here; api_keys is all there is")
        listed: Any = content.get("api_keys")
        if not isinstance(listed, Mapping):
            self.note(("api_keys",), "has to be there: a mapping from each key to what it stands for")
            listed = {}
        keys: dict[bytes, StaticKey] = {}
        for number, (key, entry) in enumerate(listed.items(), 1):
            path: Path = ("api_keys", number)
            digest = self._digest(path, key)
            if digest in keys:
                self.note(path, "is there twice, perhaps as it is and as its hash")
            keys[digest] = self._entry(path, digest, entry)
        if self.mistakes:
            raise ConfigurationError("\n".join(self.mistakes))
        return list(keys.values())

    def note(self, path: Path, mistake: str) -> None:
        """Add a mistake at ``path``."""
        # With one wrong indentation a key stands where a name should: what could be a key is not shown.
        shown = (part if isinstance(part, int) or len(part) < MIN_KEY_LENGTH else "a member" for part in path)
        names = ", ".join(f"key {part}" if isinstance(part, int) else part for part in shown)
        line = next((self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines), None)
        place = [self.source, "" if line is None else f"line {line}", names]
        self.mistakes.append(", ".join(part for part in place if part) + f": {mistake}" if any(place) else mistake)

    def _digest(self, path: Path, key: object) -> bytes:
        if not isinstance(key, str):
            self.note(path, f"is a {type(key).__name__}, not text: put it in quotation marks")
            return b"%d" % len(self.mistakes)
        if key.startswith("sha256:"):
            hashed = _HASH.fullmatch(key)
            if hashed is None:
                self.note(
                    path, "is no hash: after sha256: stand 64 hexadecimal digits, as `fastapi-guard keys hash` says"
                )
                return b"%d" % len(self.mistakes)
            return bytes.fromhex(hashed[1])
        if len(key) < MIN_KEY_LENGTH:
            self.note(path, f"has fewer than {MIN_KEY_LENGTH} characters: such a key is guessed, take a random one")
        elif not self.sendable(key):
            self.note(path, "has a character that cannot be sent where the key is expected: use letters and digits")
        return sha256(key.encode("utf-8", "surrogatepass")).digest()

    def _entry(self, path: Path, digest: bytes, entry: object) -> StaticKey:
        if not isinstance(entry, Mapping):
            self.note(path, "is a mapping, such as {user_id: alice}")
            entry = {"user_id": "-"}
        for name in entry:
            if name not in FIELDS:
                self.note((*path, str(name)), f"is not known; there are {', '.join(FIELDS)}")
        expires_at = self._moment((*path, "expires_at"), entry.get("expires_at"))
        claims: Claims = {
            "sub": self._text((*path, "user_id"), entry.get("user_id")),
            "scope": self._scopes((*path, "scopes"), entry.get("scopes")),
            "tenant_id": self._text((*path, "tenant_id"), entry.get("tenant_id"), optional=True),
            "is_admin": self._flag((*path, "is_admin"), entry.get("is_admin", False)),
            "metadata": self._metadata((*path, "metadata"), entry.get("metadata")),
        }
        if expires_at is not None:
            claims["exp"] = int(expires_at)
        return StaticKey(digest, claims, expires_at)

    def _text(self, path: Path, value: object, *, optional: bool = False) -> str | None:
        if value is None and optional:
            return None
        if not isinstance(value, str) or not value:
            found = (
                "is missing"
                if value is None
                else "is empty"
                if value == ""
                else f"is no text, but {type(value).__name__}"
            )
            self.note(path, f"{found}: it is whom or what the key belongs to, in quotation marks")
            return None
        return value

    def _flag(self, path: Path, value: object) -> bool:
        if not isinstance(value, bool):
            self.note(path, f"is true or false, not {type(value).__name__}")
        return value is True

    def _scopes(self, path: Path, value: object) -> str:
        if value is None:
            return ""
        if not isinstance(value, list | tuple | set | frozenset):
            self.note(path, f'is a list of scopes, such as ["items:read"], not {type(value).__name__}')
            return ""
        scopes = []
        for scope in value:
            try:
                scopes.append(Scope(scope))
            except ConfigurationError as error:
                self.note(path, str(error))
        return " ".join(dict.fromkeys(scopes))

    def _moment(self, path: Path, value: object) -> float | None:
        if value is None:
            return None
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                self.note(path, "is no moment: write it as 2027-01-01T00:00:00Z")
                return None
        if not isinstance(value, datetime):
            self.note(path, f"is a date and a time, such as 2027-01-01T00:00:00Z, not {type(value).__name__}")
            return None
        if value.utcoffset() is None:
            self.note(path, f"has no time zone, so that nobody knows its moment: write {value.isoformat()}Z")
            return None
        return value.timestamp()

    def _metadata(self, path: Path, value: object) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            self.note(path, f"is a mapping from names, not {type(value).__name__}")
            return {}
        try:
            json.dumps(dict(value), allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            self.note(path, "has something in it that JSON cannot say: put it in quotation marks")
            return {}
        plain: dict[str, Any] = copied(dict(value))
        return plain
