"""Key formats: JWK members and PEM text as other programs write them, as keys of joserfc.

It is lenient where nothing is lost: a member that is null or empty counts as absent, numbers may be in plain base64,
and line ends may be the two characters backslash and n, as in an environment file.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, KeyParameters, OKPKey, RSAKey

from fastapi_guard.claims import is_present
from fastapi_guard.exceptions import ConfigurationError, shown

_PEM: Final = re.compile(r"-----BEGIN ([^-\n]*)-----(.*?)-----END \1-----", re.DOTALL)
_PEM_BEGIN: Final = re.compile(r"-----BEGIN ([^-\n]*)-----")
# Each program that escapes them once more doubles the backslash.
_ESCAPED_LINE_END: Final = re.compile(r"\\+[rn]")
_WHITE_SPACE: Final = re.compile(r"\s+")
_PEM_LINE: Final = 64
_TO_URL_SAFE: Final = str.maketrans("+/", "-_")
# What a key is made of, by RFC 7518 6 and RFC 8037 2; and of the rest, what decides about its use (RFC 7517 4).
_PUBLIC_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_NUMBERS: Final = frozenset({"n", "e", "d", "p", "q", "dp", "dq", "qi", "x", "y", "k"})
_SHORTEST_MODULUS: Final = 342  # characters of base64url for 2048 bits (RFC 7518 3.3)
_DESCRIPTIVE: Final = ("kid", "use", "alg", "key_ops")


def import_jwk(members: Mapping[str, Any]) -> Key:
    """Return the key of a JWK; a member that is null or empty is left out.

    Raises:
        JoseError: It is not a JWK, or of a type that is not supported; joserfc's own errors.
        ValueError: A number in it is not base64url, or not one of a key.
    """
    return JWKRegistry.import_key({name: _number(name, value) for name, value in members.items() if is_present(value)})


def import_published(entry: object) -> Key:
    """Return the public key of an entry in a published set; its other members, certificates included, are ignored.

    Raises:
        JoseError: As for ``import_jwk``.
        ValueError: As for ``import_jwk``; or it is not an object, or a symmetric key.
    """
    kty = entry.get("kty") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(kty, str) or kty not in _PUBLIC_MEMBERS:
        msg = "it is not a JWK of type RSA, EC or OKP"
        raise ValueError(msg)
    if is_present(entry.get("use")) and entry["use"] != "sig":
        msg = f"its use is {entry['use']!r:.40}"
        raise ValueError(msg)
    if kty == "RSA" and isinstance(entry.get("n"), str) and len(entry["n"]) < _SHORTEST_MODULUS:
        msg = "an RSA key has at least 2048 bits"  # joserfc would import it, with a warning
        raise ValueError(msg)
    names = (*_PUBLIC_MEMBERS[kty], *_DESCRIPTIVE)
    return import_jwk({"kty": kty, **{name: entry[name] for name in names if name in entry}})


def import_pem(text: str, kid: str | None = None) -> Key:
    """Return the key of a PEM text: a private or public key, or a certificate, on one line or several.

    Args:
        text: The text. Line ends may be the two characters backslash and n, or spaces.
        kid: The name of the key.

    Raises:
        ConfigurationError: It is encrypted, has several blocks, or is not PEM, or not text.
    """
    if not isinstance(text, str):
        msg = f"key is the text of a PEM file, not {shown(text)}: decode its bytes"
        raise ConfigurationError(msg)
    text = _ESCAPED_LINE_END.sub("\n", text)
    labels = _PEM_BEGIN.findall(text)
    blocks = [label for label in labels if label != "EC PARAMETERS"]
    if len(blocks) > 1 or len(labels) > 2:
        msg = f"key is a text of {len(blocks)} PEM blocks: one key per text, pass a list (of a chain, the first alone)"
        raise ConfigurationError(msg)
    raw = "\n".join(_wrapped(*block) for block in _PEM.findall(text)).encode("ascii", "replace")
    parameters: KeyParameters | None = None if kid is None else {"kid": kid}
    for kind in (RSAKey, ECKey, OKPKey) if raw else ():
        try:
            return cast("Key", kind.import_key(raw, parameters))
        except TypeError:  # of cryptography, which was given no password
            msg = "key is an encrypted PEM: decrypt it first, such as by openssl pkey -in encrypted.pem -out key.pem"
            raise ConfigurationError(msg) from None
        except (ValueError, UnsupportedAlgorithm, JoseError):
            continue
    msg = "key is a text that is not PEM, or of a type that is not supported"
    raise ConfigurationError(msg)


def entries_of(document: object) -> Iterator[object]:
    """Yield the entries of a JWK Set, or of a map of PEM texts by their ``kid``, as Google publishes certificates.

    An entry of a map is a pair of its ``kid`` and the text.
    """
    if not isinstance(document, Mapping):
        return
    entries = document.get("keys")
    if isinstance(entries, list):
        yield from entries
    elif is_pem_map(document):
        yield from document.items()


def is_pem_map(document: Mapping[Any, Any]) -> bool:
    """Return whether a mapping has PEM texts, by the ``kid`` of each."""
    return any(isinstance(value, str) and "-----BEGIN " in value for value in document.values())


def _number(name: str, value: Any) -> Any:
    """Return a number in strict base64url, without the padding, line ends or alphabet of plain base64."""
    if name not in _NUMBERS or not isinstance(value, str):
        return value
    return _WHITE_SPACE.sub("", value).rstrip("=").translate(_TO_URL_SAFE)


def _wrapped(label: str, body: str) -> str:
    """Return a PEM block with line ends where the format wants them; one with a header of its own stays as it is."""
    if ":" not in body:
        letters = _WHITE_SPACE.sub("", body)
        body = "\n".join(("", *(letters[at : at + _PEM_LINE] for at in range(0, len(letters), _PEM_LINE)), ""))
    return f"-----BEGIN {label}-----{body}-----END {label}-----"
