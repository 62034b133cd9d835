"""Keys: read them, check that they are strong and fit an algorithm, show their public halves.

A key carries its family, and an algorithm takes keys of its own family only; nothing about a key is guessed from its
bytes (RFC 8725 3.1). Secrets are checked in ``secrets``.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet, OctKey, OKPKey, RSAKey
from pydantic import SecretStr

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.algorithms import BY_KEY_TYPE, as_algorithms, model_of
from fastapi_guard.jwt.compact import MAX_KID_LENGTH
from fastapi_guard.jwt.key_formats import entries_of, import_jwk, import_pem, import_published, is_pem_map
from fastapi_guard.jwt.secrets import check_secret
from fastapi_guard.stores.hidden import revealed

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel

logger: logging.Logger = logging.getLogger("fastapi_guard")

KeyInput = Key | KeySet | str | SecretStr | Sequence[Key | str | SecretStr] | Mapping[str, Any]

_MINIMUM_RSA_BITS: Final = 2048  # RFC 7518 3.3
_EC_ALGORITHMS: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_PUBLIC_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


def as_keys(value: KeyInput) -> tuple[Key, ...]:
    """Return the keys that a user passes.

    Args:
        value: A key of joserfc, PEM or JWK text, a KeySet, a list of these; a JWK or a JWK Set as a mapping, or a
            mapping of PEM texts, such as certificates, by the ``kid`` of each. A text may be a SecretStr.

    Raises:
        ConfigurationError: There is none, or a text is neither PEM nor JWK.
    """
    value = revealed(value)
    if isinstance(value, KeySet):
        keys = tuple(value.keys)
    elif isinstance(value, str):
        keys = _from_text(value)
    elif isinstance(value, Mapping):
        keys = _from_mapping({name: revealed(member) for name, member in value.items()})
    elif isinstance(value, list | tuple):
        keys = tuple(key for item in value for key in as_keys(cast("KeyInput", item)))
    elif isinstance(value, OctKey | RSAKey | ECKey | OKPKey):
        keys = (value,)
    else:
        msg = (
            f"key is a joserfc key, a KeySet, PEM or JWK text, or a list of these, not {type(value).__name__};"
            " decode the bytes of a PEM file, and wrap a secret: jwk.OctKey.import_key(secret)"
        )
        raise ConfigurationError(msg)
    if not keys:
        msg = "key is empty: pass at least one"
        raise ConfigurationError(msg)
    for key in keys:
        _check_readable(key)
    return keys


def check_key(key: Key, algorithms: Iterable[str]) -> None:
    """Refuse a key that is too weak, or that fits none of ``algorithms``.

    Raises:
        ConfigurationError: With the remedy.
    """
    fitting = [name for name in algorithms if fits(key, name)]
    if isinstance(key, OctKey):
        check_secret(key.raw_value, fitting)
    if isinstance(key, RSAKey) and key.raw_value.key_size < _MINIMUM_RSA_BITS:
        msg = f"an RSA key has at least {_MINIMUM_RSA_BITS} bits (RFC 7518 3.3): jwk.RSAKey.generate_key(2048)"
        raise ConfigurationError(msg)
    if not fitting:
        kind = f"{key.key_type} {key.get('crv') or ''}".strip()
        msg = (
            f"a key of type {kind} fits none of the algorithms {', '.join(algorithms)}, or its alg or use excludes all"
        )
        raise ConfigurationError(msg)


def derive_algorithms(keys: Iterable[Key]) -> tuple[str, ...]:
    """Return the algorithms that are meant where none are named: one for each key, by its type and curve.

    Raises:
        ConfigurationError: A key is of a curve for which there is none.
    """
    derived: dict[str, None] = {}
    for key in keys:
        named = key.alg
        if named is not None:
            names: tuple[str, ...] = (named,)
        elif isinstance(key, OctKey):
            names = ("HS256",)
        elif isinstance(key, RSAKey):
            names = ("RS256",)
        elif isinstance(key, ECKey):
            names = (_EC_ALGORITHMS.get(key.curve_name, key.curve_name),)
        else:
            names = ("Ed25519", "EdDSA") if key.curve_name == "Ed25519" else (key.curve_name,)
        derived.update(dict.fromkeys(names))
    return as_algorithms(derived)


def signing_algorithm(key: Key, algorithms: Iterable[str]) -> "JWSAlgModel | None":
    """Return the first of ``algorithms`` that ``key`` can sign with, ``None`` where it can sign with none."""
    if not key.is_private or not may(key, "sign"):
        return None
    return next((model_of(name) for name in algorithms if fits(key, name)), None)


def key_id(key: Key) -> str:
    """Return the ``kid`` of a key: its own, else its thumbprint (RFC 7638)."""
    return key.kid or key.thumbprint()


def public_jwks(keys: Iterable[Key], algorithms: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """Return the JWK Set of the public halves, members listed by kty: nothing symmetric, nothing private.

    Raises:
        ConfigurationError: No key has a public half.
    """
    public = [
        {
            "kty": key.key_type,
            **{name: str(key.as_dict(private=False)[name]) for name in _PUBLIC_MEMBERS[key.key_type]},
            "kid": key_id(key),
            "use": "sig",
            "alg": key.alg or next(name for name in algorithms if fits(key, name)),
        }
        for key in keys
        if key.key_type in _PUBLIC_MEMBERS
    ]
    if not public:
        msg = "there is no public key to show: a symmetric key is never published; sign with an EC, RSA or OKP key"
        raise ConfigurationError(msg)
    return {"keys": public}


def usable_keys(
    document: object, algorithms: Iterable[str], report: Callable[[str], object] | None = None
) -> list[Key]:
    """Return the keys of a published set that verify by one of ``algorithms``.

    One broken, unknown, weak or symmetric entry is skipped: a symmetric key in a published set is not a secret.

    Args:
        document: A JWK Set, or a map of PEM certificates or public keys by their ``kid``.
        algorithms: The closed list.
        report: Called with the ``kid`` and the reason for each entry that is skipped; by default they are logged.
    """
    keys: list[Key] = []
    for entry in entries_of(document):
        try:
            keys.append(_published_key(entry, algorithms))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an entry, the others still count
            (report or logger.warning)(_complaint(entry, error))
    return keys


def _published_key(entry: object, algorithms: Iterable[str]) -> Key:
    key = import_pem(entry[1], entry[0]) if isinstance(entry, tuple) else import_published(entry)
    check_key(key, algorithms)
    if not may(key, "verify"):
        msg = "its key_ops do not include verify"
        raise ValueError(msg)
    return key


def _complaint(entry: object, error: Exception) -> str:
    """Return why an entry is skipped, for the log: one line, of bounded length."""
    kid = entry[0] if isinstance(entry, tuple) else entry.get("kid") if isinstance(entry, dict) else None
    text = str(error) if isinstance(error, ValueError | JoseError) else ""
    reason = text or type(error).__name__
    return f"the key {kid!r:.80} is skipped: {reason!r:.200}"


def public_half(key: Key) -> Key:
    """Return what of ``key`` may be shown, imported once; joserfc computes it at each use. A secret stays as it is."""
    if isinstance(key, OctKey) or not key.is_private:
        return key
    members = {name: value for name, value in key.as_dict(private=False).items() if name != "key_ops"}
    operations = key.get("key_ops")
    if operations is not None:
        members["key_ops"] = [name for name in operations if name == "verify"]
    return JWKRegistry.import_key(members)


def fits(key: Key, algorithm: str) -> bool:
    """Return whether ``key`` is of the family, the curve, the ``use`` and the ``alg`` of an algorithm."""
    if algorithm not in BY_KEY_TYPE.get(key.key_type, ()):
        return False
    try:
        key.check_use("sig")
        key.check_alg(algorithm)
        model_of(algorithm).check_key(cast("Any", key))
    except JoseError:
        return False
    return not isinstance(key, OKPKey) or key.curve_name == "Ed25519"


def may(key: Key, operation: Literal["sign", "verify"]) -> bool:
    """Return whether the ``key_ops`` of ``key`` allow an operation (RFC 7517 4.3)."""
    try:
        key.check_key_op(operation)
    except JoseError:
        return False
    return True


def _from_text(text: str) -> tuple[Key, ...]:
    stripped = text.strip().strip("\"'")
    if stripped.startswith("{"):
        try:
            value = json.loads(stripped)
        except (ValueError, RecursionError):
            raise _unreadable_jwk() from None
        return _from_mapping(value)
    if "-----BEGIN " in stripped:
        return (import_pem(stripped),)
    msg = (
        "key is a text that is neither PEM nor JWK; for a file of `fastapi-guard jwk generate` pass KeyFile(path), and"
        ' for a secret jwk.OctKey.import_key({"kty": "oct", "k": "<32 random bytes in base64url>"}) (from joserfc'
        " import jwk), never a password"
    )
    raise ConfigurationError(msg)


def _from_mapping(value: Mapping[str, Any]) -> tuple[Key, ...]:
    try:
        if "keys" not in value and is_pem_map(value):
            return tuple(import_pem(text, kid) for kid, text in value.items())
        return tuple(import_jwk(members) for members in value.get("keys", [value]))
    except (ValueError, TypeError, AttributeError, LookupError, JoseError):
        raise _unreadable_jwk() from None


def _unreadable_jwk() -> ConfigurationError:
    return ConfigurationError("key looks like a JWK or a JWK Set, but cannot be read as one")


def _check_readable(key: Key) -> None:
    # joserfc reads a key on first use, and meets a curve that it does not know with a KeyError.
    try:
        kid = key_id(key)
    except (ValueError, LookupError, JoseError):
        msg = "a key is of a curve without an algorithm here: use P-256, P-384, P-521 or Ed25519"
        raise ConfigurationError(msg) from None
    if len(kid) > MAX_KID_LENGTH:
        msg = f"a kid has {len(kid)} characters, a token may name {MAX_KID_LENGTH} of them: use a shorter one"
        raise ConfigurationError(msg)
