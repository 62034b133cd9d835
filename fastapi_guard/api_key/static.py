"""StaticAPIKeyAuth: a few API keys in the configuration, each as it is or as its hash."""

import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

from fastapi.security.base import SecurityBase

from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.claims import Claims, copied
from fastapi_guard.exceptions import INVALID_API_KEY, ConfigurationError, Unauthorized
from fastapi_guard.schemes import BearerScheme, SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.arguments import clock_of

if TYPE_CHECKING:
    from fastapi_guard.api_key.entries import StaticKey
    from fastapi_guard.api_key.mistakes import Place

logger: logging.Logger = logging.getLogger("fastapi_guard")

_SENDABLE = re.compile(r"[\x21-\x7e]+")
_SENDABLE_AS_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
# The message of tomllib quotes the file, and with it a key: its place is enough.
_TOML_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)$")


class StaticKeyOptions(ScopesOptions, total=False):
    """The keyword arguments of StaticAPIKeyAuth, beside those of every ScopesAuth.

    Attributes:
        clock: Seconds since the epoch.
    """

    clock: Callable[[], float]


class StaticAPIKeyAuth(ScopesAuth):
    """API keys from the configuration.

    The claims are ``sub``, ``scope``, ``tenant_id``, ``is_admin``, ``metadata``, and ``exp`` where the key expires.
    """

    name = "api-key"
    _missing_detail = INVALID_API_KEY
    _invalid_detail = INVALID_API_KEY
    _trusts_everything = True

    def __init__(
        self,
        api_keys: Mapping[str, Any],
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        **options: Unpack[StaticKeyOptions],
    ) -> None:
        """Accept the keys of ``api_keys``.

        Args:
            api_keys: The settings of each key, by the key or by ``sha256:`` and its hash in hexadecimal:
                ``{"user_id": ..., "tenant_id": ..., "is_admin": ..., "scopes": [...], "expires_at": ...,
                "metadata": {...}}``; ``user_id`` alone is needed. Or a mapping with that under ``api_keys``. A key may
                be a SecretStr, and settings a model of pydantic.
            scheme: Reads the key, by default from the Bearer header.
            scope_validator: Decides which scopes cover which, by default by hierarchy.
            options: See StaticKeyOptions.

        Raises:
            ConfigurationError: Entries are not as above; the message has each mistake with its place, and no key.
        """
        self._clock = clock_of(options.pop("clock", time.time))
        super().__init__(scheme, scope_validator, **cast("ScopesOptions", options))
        # The index is hashed with a secret of this process: no timing of a look-up is about a stored key.
        self._secret = secrets.token_bytes(32)
        whole = isinstance(api_keys, Mapping) and "api_keys" in api_keys
        self._keys = self._slots(api_keys if whole else {"api_keys": api_keys})

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        **options: Unpack[StaticKeyOptions],
    ) -> Self:
        """Accept the keys of a file: ``.yaml`` or ``.yml``, which needs the extra ``yaml``, or ``.toml``.

        It has one member, ``api_keys``, as for the constructor.

        Raises:
            ConfigurationError: The file cannot be read, or entries are not as they should be.
            MissingExtraError: The extra ``yaml`` is not installed.
        """
        file = Path(path)
        content, lines = load_file(file)
        auth = cls({}, scheme, scope_validator, **options)
        auth._keys = auth._slots(content, file.name, lines)
        return auth

    async def verify(self, raw: str) -> Claims:
        """Return the claims of a key.

        Raises:
            Unauthorized: It is unknown, or has expired.
        """
        digest = sha256(raw.encode("utf-8", "surrogatepass")).digest()
        found = self._keys.get(self._slot(digest))
        if found is None or not hmac.compare_digest(digest, found.digest):
            raise Unauthorized(INVALID_API_KEY, error="invalid_token", reason="unknown_key")
        if found.expires_at is not None and found.expires_at <= self._clock():
            raise Unauthorized(INVALID_API_KEY, error="invalid_token", reason="expired")
        return cast("Claims", copied(found.claims))

    def _slots(
        self, content: object, source: str = "", lines: "Mapping[Place, int] | None" = None
    ) -> "dict[bytes, StaticKey]":
        # With them come the models of pydantic that read the settings, for those who have static keys.
        from fastapi_guard.api_key.entries import read_entries  # noqa: PLC0415 - see above
        from fastapi_guard.api_key.mistakes import Mistakes  # noqa: PLC0415 - see above

        mistakes = Mistakes(source, lines)
        sendable = _SENDABLE_AS_BEARER if isinstance(self.scheme, BearerScheme) else _SENDABLE
        keys = read_entries(mistakes, content, is_sendable=lambda key: sendable.fullmatch(key) is not None)
        mistakes.refuse()
        expired = sum(key.expires_at is not None and key.expires_at <= self._clock() for key in keys)
        if expired:
            # Not an error: an application that was restarted later than that has to start.
            logger.warning("%d of the static API keys have expired", expired)
        return {self._slot(key.digest): key for key in keys}

    def _slot(self, digest: bytes) -> bytes:
        return hmac.digest(self._secret, digest, "sha256")


def load_file(file: Path) -> "tuple[Any, dict[Place, int]]":
    """Return the content of a YAML or TOML file, and in YAML the line of each path in it.

    Raises:
        ConfigurationError: It cannot be read; the message quotes nothing of it.
        MissingExtraError: The extra ``yaml`` is not installed.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        msg = f"{file} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from None
    except UnicodeDecodeError:
        msg = f"{file.name} is not UTF-8"
        raise ConfigurationError(msg) from None
    if file.suffix in (".yaml", ".yml"):
        # A file in TOML needs no extra.
        from fastapi_guard.api_key.yaml_file import load_yaml  # noqa: PLC0415 - needs an extra

        return load_yaml(file.name, text)
    if file.suffix != ".toml":
        msg = f"{file.name} is neither YAML nor TOML: call it .yaml, .yml or .toml"
        raise ConfigurationError(msg)
    import tomllib  # noqa: PLC0415 - a parser for the few that have such a file

    try:
        return tomllib.loads(text), {}
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        place = _TOML_PLACE.search(str(error))
        where = f", line {place[1]}, column {place[2]}" if place else ""
        msg = f"{file.name}{where}: this is not valid TOML"
        raise ConfigurationError(msg) from None
