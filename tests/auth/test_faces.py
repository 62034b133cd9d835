"""The names that a user sees on an Auth: few, documented, with the parameters of their documentation."""

import inspect
from typing import Any

import pytest

from fastapi_guard import Auth, BearerScheme, ScopesAuth, TokenAuth
from fastapi_guard.login.local import LocalAuth
from support.tokens import auth_of

AUTH = {
    "aclose",
    "allows",
    "authenticated",
    "decide",
    "dependency",
    "grants_of",
    "name",
    "optional",
    "optional_dependency",
    "owned",
    "recognises",
    "requires_factor",
    "requires_recent",
    "scheme",
    "user",
    "validate_token",
    "verify",
    "verify_request",
}
SCOPES = AUTH | {
    "covers",
    "granted",
    "has_scope",
    "requires",
    "requires_admin",
    "requires_any",
    "requires_role",
    "requires_tenant",
    "scope_validator",
}
JWT = SCOPES | {
    "check_claims",
    "config",
    "create_access_token",
    "encode",
    "fetch_jwks",
    "issuers",
    "replace_keys",
    "revocations",
}


LOCAL = JWT | {"gate", "login", "logout", "refresh", "revoke", "revoke_subject", "set_password", "tokens"}


class Plain(ScopesAuth):
    """A ScopesAuth of an application."""

    async def verify(self, raw: str) -> dict[str, Any]:  # type: ignore[empty-body]
        """Verify nothing: no test calls it."""


def names(value: object) -> set[str]:
    """Return the public names of an object."""
    return {name for name in dir(value) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        (Auth(BearerScheme()), AUTH),
        (TokenAuth(), AUTH),
        (Plain(), SCOPES),
        (auth_of("ES256"), JWT),
        (LocalAuth(auth_of("ES256").config, {}), LOCAL),
        (Plain(name="plain") | Auth(BearerScheme()), SCOPES | {"members"}),
    ],
    ids=["Auth", "TokenAuth", "ScopesAuth", "JWTAuth", "LocalAuth", "AnyAuth"],
)
def test_public_names(auth: Auth[Any], expected: set[str]) -> None:
    """Each kind of Auth shows exactly these names, and each method has a docstring."""
    assert names(auth) == expected
    methods = [getattr(type(auth), name) for name in expected if callable(getattr(type(auth), name, None))]
    assert len(methods) > 10
    assert all(inspect.getdoc(method) for method in methods)


def test_how_many_names_there_are() -> None:
    """At most 18 on an Auth, 28 on a ScopesAuth, 35 on a JWTAuth."""
    assert (len(AUTH), len(SCOPES), len(JWT)) <= (18, 28, 35)


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("authenticated", "()"),
        ("optional", "(*, ignore_invalid: bool = False)"),
        ("requires", "(*scopes: str)"),
        ("requires_any", "(*scopes: str)"),
        ("requires_role", "(*roles: str)"),
        ("requires_admin", "()"),
        ("requires_tenant", "(path_param: str = 'tenant')"),
        ("requires_recent", "(max_age: int | datetime.timedelta)"),
        (
            "requires_factor",
            "(factor: str, *, max_age: int | datetime.timedelta | None = None, acr_values: str | None = None)",
        ),
        ("user", "(load: collections.abc.Callable[..., typing.Any], *scopes: str)"),
        ("allows", "(policy: collections.abc.Callable[..., typing.Any], *scopes: str)"),
        ("granted", "()"),
    ],
)
def test_signatures(name: str, signature: str) -> None:
    """The signature of a guard method, and so its help, has the documented parameters and no other."""
    auth = auth_of("ES256")
    assert str(inspect.signature(getattr(auth, name))).partition(" -> ")[0] == signature
