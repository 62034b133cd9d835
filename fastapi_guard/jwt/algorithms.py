"""Algorithms: the closed list, and the allow-lists that can be configured from it (RFC 8725 3.1, 3.2)."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

from fastapi_guard.exceptions import ConfigurationError, shown

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel

# It does not have "none", and nothing adds to it.
BY_KEY_TYPE: Final[dict[str, tuple[str, ...]]] = {
    "oct": ("HS256", "HS384", "HS512"),
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("Ed25519", "EdDSA"),
}
SYMMETRIC: Final = frozenset(BY_KEY_TYPE["oct"])
_ALL: Final = tuple(name for names in BY_KEY_TYPE.values() for name in names)
ASYMMETRIC: Final = tuple(name for name in _ALL if name not in SYMMETRIC)


def as_algorithms(names: Iterable[str]) -> tuple[str, ...]:
    """Return an allow-list of algorithms.

    Raises:
        ConfigurationError: It is empty, has a name that is not on the list, or mixes symmetric and asymmetric
            algorithms (RFC 8725 3.1).
    """
    if isinstance(names, str):
        msg = f'algorithms is a list of names, such as ["ES256"], not {shown(names)}'
        raise ConfigurationError(msg)
    if not isinstance(names, Iterable):
        msg = f'algorithms is a list of names, such as ["ES256"], not {shown(names)}'
        raise ConfigurationError(msg)
    algorithms = tuple(names)
    unknown = [name for name in algorithms if not isinstance(name, str) or name not in _ALL]
    if unknown or not algorithms:
        msg = f"algorithms needs names among {', '.join(_ALL)}, not {', '.join(map(shown, unknown)) or 'none'}"
        raise ConfigurationError(msg)
    if 0 < len(SYMMETRIC.intersection(algorithms)) < len(set(algorithms)):
        msg = "symmetric and asymmetric algorithms cannot be accepted together: use one configuration for each"
        raise ConfigurationError(msg)
    return algorithms


def model_of(algorithm: str) -> "JWSAlgModel":
    """Return the implementation of an algorithm of the list."""
    return _models()[algorithm]


@cache
def _models() -> Mapping[str, "JWSAlgModel"]:
    # Imported with the first key, since joserfc's encryption comes along, which is not used here.
    from joserfc.jwa import JWS_ALGORITHMS  # noqa: PLC0415 - see above

    return {model.name: model for model in JWS_ALGORITHMS if model.name in _ALL}
