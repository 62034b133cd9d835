"""Read the kind of a token: the marks of access tokens, ID tokens and others (RFC 8725 3.11, 3.12)."""

import re
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, Final, Literal

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import ConfigurationError, invalid_token, shown

TokenKind = Literal["access", "id", "logout"]


class Client(Enum):
    """When a claim that names a client is the mark of an access token.

    An ID token may name another client than its audience (OpenID Connect Core 2: ``azp``), such as an application for
    Android that logs in for its server. Where the audience may be a client, the claim is not a mark.

    Attributes:
        OTHER: The client is not the audience.
        OF_A_RESOURCE: And the audience is a URI (RFC 8707), which the client is not.
    """

    OTHER = "other"
    OF_A_RESOURCE = "of a resource"


# The media type of a JWT access token (RFC 9068 2.1).
ACCESS_TOKEN_TYPE: Final = "at+jwt"
# The marks of an ID token (OpenID Connect Core 3.1.3.6 and 3.3.2.11, FAPI 1.0 part 2, 5.1.1).
ID_TOKEN_MARKS: Final = frozenset({"at_hash", "c_hash", "s_hash"})
# The positive marks of an access token, each with its accepted values, or none for any.
ACCESS_MARKS: Final[Mapping[str, tuple[object, ...]]] = {
    "scope": (),
    "scp": (),
    "token_use": ("access",),
    "typ": ("Bearer", "DPoP"),
    "client_id": (Client.OTHER,),
    "azp": (Client.OF_A_RESOURCE,),
}
# The values by which Cognito, Keycloak and Ory Hydra name tokens of another kind, in lower case.
OTHER_KINDS: Final[Mapping[TokenKind, Mapping[str, frozenset[str]]]] = {
    "access": {
        "token_use": frozenset({"id", "id_token", "refresh", "refresh_token"}),
        "token_type": frozenset({"id_token", "refresh_token", "n_a"}),
        "typ": frozenset({"id", "refresh", "offline", "logout"}),
    },
    "id": {
        "token_use": frozenset({"access", "access_token", "refresh", "refresh_token"}),
        "token_type": frozenset({"access_token", "refresh_token", "bearer", "dpop"}),
        "typ": frozenset({"bearer", "dpop", "refresh", "offline", "logout"}),
    },
}
# What ID tokens say of a login and of a person (OpenID Connect Core 2 and 5.1, Session Management, Google).
_LOGIN_CLAIMS: Final = frozenset(
    {
        *("nonce", "auth_time", "acr", "amr", "sid", "hd", "name", "given_name", "family_name", "middle_name"),
        *("nickname", "preferred_username", "profile", "picture", "website", "email", "email_verified", "gender"),
        *("birthdate", "zoneinfo", "locale", "phone_number", "phone_number_verified", "address", "updated_at"),
    }
)
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[Uu][Rr][Nn]:")


def check_marks(
    claims: Claims, marks: Mapping[str, tuple[object, ...]], typ: str | None, audiences: Collection[str]
) -> None:
    """Refuse a token without a positive mark of an access token: an ID token may have no mark of its own.

    Args:
        claims: The claims.
        marks: The claims of which it must have one, each with its accepted values, or none for any text, list or
            object; a ``Client`` among the values is the rule for the name of a client.
        typ: The ``typ`` of the header. at+jwt is always a mark.
        audiences: The accepted audiences.

    Raises:
        Unauthorized: It has no mark.
    """
    if typ is not None and media_type(typ) == ACCESS_TOKEN_TYPE:
        return
    for name, accepted in marks.items():
        value = claims.get(name)
        value = value.strip() if isinstance(value, str) else value  # spaces alone name no scope
        if not (isinstance(value, str | list | dict) and value) or _is_blank(value):
            continue
        if not accepted or value in accepted or _is_mark(claims, value, accepted, audiences):
            return
    raise invalid_token("no_access_mark")


def _is_blank(value: str | list[Any] | dict[str, Any]) -> bool:
    # An issuer without scopes may list an empty one.
    return isinstance(value, list) and all(isinstance(part, str) and not part.strip() for part in value)


def _is_mark(claims: Claims, client: Any, accepted: tuple[object, ...], audiences: Collection[str]) -> bool:
    wanted = next((rule for rule in accepted if isinstance(rule, Client)), None)
    if wanted is None or not isinstance(client, str) or not _LOGIN_CLAIMS.isdisjoint(claims):
        return False
    audience = claims.get("aud")
    named: list[Any] = audience if isinstance(audience, list) else [audience]
    if client in named or client in audiences:
        return False
    if wanted is Client.OTHER:
        return True
    return not _URI.match(client) and any(_URI.match(text) for text in named if text in audiences)


def marks_of(access_mark: Mapping[str, Any] | None) -> Mapping[str, tuple[object, ...]]:
    """Return the marks of which an access token must have one, by default ``ACCESS_MARKS``.

    Raises:
        ConfigurationError: There is none, or one has no value.
    """
    if access_mark is None:
        return ACCESS_MARKS
    if not isinstance(access_mark, Mapping) or not access_mark:
        msg = (
            "access_mark names a claim that access tokens have and ID tokens do not, such as {'token_use': 'access'};"
            " without any mark an ID token would be accepted (RFC 8725 3.12)"
        )
        raise ConfigurationError(msg)
    return {
        name: () if value is True else accepted_values("access_mark", name, value)
        for name, value in access_mark.items()
    }


def accepted_values(option: str, name: str, value: object) -> tuple[object, ...]:
    """Return the accepted values of the claim ``name``: one, or several.

    Raises:
        ConfigurationError: There is none, or one is empty.
    """
    accepted = tuple(value) if isinstance(value, Collection) and not isinstance(value, str) else (value,)
    if not accepted or None in accepted or "" in accepted:
        msg = f"{option}[{name!r}] is the value, or the values, that are accepted, not {shown(value)}"
        raise ConfigurationError(msg)
    return accepted


def rejected_texts(name: str, value: object) -> frozenset[str]:
    """Return the texts, in lower case, with which the claim ``name`` is rejected.

    Raises:
        ConfigurationError: There is none, one is not text, or the claim has a rule of its own already.
    """
    texts = accepted_values("reject", name, value)
    if name in OTHER_KINDS["access"] or not all(isinstance(text, str) for text in texts):
        msg = f"reject[{name!r}] is one or several texts of another claim than {', '.join(OTHER_KINDS['access'])}"
        raise ConfigurationError(msg)
    return frozenset(str(text).lower() for text in texts)


def media_type(typ: str) -> str:
    """Return a ``typ`` in the form in which two are compared (RFC 7515 4.1.9)."""
    return typ.lower().removeprefix("application/")
