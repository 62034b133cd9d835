"""One member of an AnyAuth, asked about one connection."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import RequestValidationError
from starlette.requests import HTTPConnection

from fastapi_guard.auth.auth import Auth
from fastapi_guard.auth.guard import Guard, Verified
from fastapi_guard.exceptions import AuthError, Unauthorized

# What the tests of an application have put in place of dependencies, ``None`` outside of them.
Overrides = Mapping[Any, Any] | None


class Asked(NamedTuple):
    """A connection, and what is known about it: credentials that FastAPI has resolved, overrides, required scopes."""

    connection: HTTPConnection
    raws: Mapping[Auth[Any], str | None] = MappingProxyType({})
    overrides: Overrides = None
    scopes: Sequence[str] = ()


class Found(NamedTuple):
    """A member, and what it has verified; or the principal that a test has put in its place."""

    member: Auth[Any]
    verified: Verified[Any] | None
    principal: Any = None


async def ask(member: Auth[Any], asked: Asked) -> Found | Literal[False] | None:
    """Return what a member finds: ``None`` where nothing came for it, ``False`` where that cannot be of its kind."""
    connection = asked.connection
    if asked.overrides and member.dependency in asked.overrides:
        return await _ask_override(member, asked)
    verified = member.verified_on(connection) if member.remembers else None
    if verified is not None:
        return Found(member, verified)
    try:
        raw = asked.raws[member] if member in asked.raws else member.scheme.extract(connection)
    except Unauthorized:
        raw = None  # the member meets the same, and answers with its challenge
    else:
        if raw is None:
            return None
        if not member.recognises(raw):
            return False
    verified = await member.authenticate(connection, raw)
    return None if verified is None else Found(member, verified)


async def _ask_override(member: Auth[Any], asked: Asked) -> Found | None:
    try:
        principal = await overriding(member.dependency, asked.connection, asked.scopes)
    except Unauthorized as error:
        if error.reason == "missing":
            return None
        raise
    return None if principal is None else Found(member, None, principal)


async def overriding(dependency: Guard[Any], connection: HTTPConnection, scopes: Sequence[str]) -> Any:
    """Return what a test has put in place of ``dependency``, resolved as FastAPI does it."""
    app = connection.scope["app"]
    dependant = get_dependant(path="", call=dependency, name="principal", own_oauth_scopes=list(scopes))
    solved = await solve_dependencies(
        request=connection,  # type: ignore[arg-type]
        dependant=Dependant(dependencies=[dependant]),
        dependency_overrides_provider=app,
        async_exit_stack=connection.scope["fastapi_inner_astack"],
        embed_body_fields=False,
    )
    if solved.errors:
        raise RequestValidationError(solved.errors)
    return solved.values["principal"]


def is_ambiguous(error: AuthError) -> bool:
    """Return whether there are two credentials where there may be one: no other member can know which is meant."""
    return isinstance(error, Unauthorized) and error.error == "invalid_request"
