"""explain: run the guards of one request as FastAPI would, and keep the result of each check.

The guards decide by the same ``Decision`` as at a request, on a connection that is made here; the endpoint does not
run, and of all middleware Starlette's SessionMiddleware alone, which reads the session. It is for the command line and
for tests: nothing of it is reachable over HTTP.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Literal

from fastapi import FastAPI, HTTPException
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import solve_dependencies
from starlette.requests import HTTPConnection, Request
from starlette.routing import compile_path
from starlette.websockets import WebSocket

from fastapi_guard.app.audit import routes_of_app
from fastapi_guard.app.explanation import Check, Explanation, FoundCredential, GrantSource
from fastapi_guard.app.guards import GuardUse, guards_in, members_of
from fastapi_guard.app.presented import Presented, connection_of, lacks_session, place_of, read_sessions
from fastapi_guard.app.ways import RouteGuards
from fastapi_guard.auth import Auth
from fastapi_guard.auth.decision import Verified, verified_on
from fastapi_guard.exceptions import AuthError, ConfigurationError, Unauthorized
from fastapi_guard.schemes import Scheme

_CREDENTIAL: Final = "a credential"
_NO_SESSION: Final = "request.session is missing: of all middleware, explain runs Starlette's SessionMiddleware alone"
_ANY_METHOD: Final = frozenset({"ANY", "MOUNT"})


async def explain(app: FastAPI, presented: Presented) -> Explanation:
    """Return why a request would be allowed or refused.

    Each guard is run, the later ones too, and decides as at a request: a ticket is used up, and a quota counts.

    Raises:
        ConfigurationError: No Auth of the route reads the credential that is presented.
    """
    method, path = presented.method.upper(), presented.path.partition("?")[0]
    matched = _match(routes_of_app(app).ways, method, path)
    if isinstance(matched, int):
        return Explanation(method=method, path=path, route=None, allowed=False, status=matched)
    way, parameters = matched
    schemes = [auth.scheme for auth in _auths(way.guards)]
    connection = connection_of(app, presented, parameters, schemes)
    await read_sessions(app, connection, path)
    checks: list[Check] = []
    needed: dict[str, None] = {}
    async with AsyncExitStack() as stack:
        connection.scope.update(dict.fromkeys(("fastapi_inner_astack", "fastapi_function_astack"), stack))
        for part in way.parts:
            uses = guards_in(Dependant(dependencies=[part]))
            lacks = lacks_session(connection, (auth.scheme for auth in _auths(uses)))
            result = _NO_SESSION if lacks else await _solve(connection, part, app, stack)
            part_checks = list(_checks(connection, uses, result))
            checks = list(dict.fromkeys((*checks, *part_checks)))
            if any(check.passed is False for check in part_checks):
                needed.update(dict.fromkeys(_needed(connection, uses, part_checks)))
    refused = next((check for check in checks if check.passed is False), None)
    undecided = any(check.passed is None for check in checks)
    return Explanation(
        method=method,
        path=path,
        route=way.path,
        allowed=False if refused else (None if undecided else True),
        status=None if refused is None else refused.status,
        credentials=tuple(_found(connection, auth) for auth in _auths(way.guards)),
        checks=tuple(checks),
        grants=tuple(_grants(connection)),
        needed=tuple(needed),
    )


def _match(
    ways: Iterable[RouteGuards], method: str, path: str
) -> tuple[RouteGuards, dict[str, Any]] | Literal[404, 405]:
    status: Literal[404, 405] = 404
    for way in ways:
        template = way.path.rstrip("/") + "/{path:path}" if way.is_mount else way.path
        pattern, _, convertors = compile_path(template)
        found = pattern.match(path) or (path == way.path and pattern.match(f"{path}/")) or None
        if found is None or way.methods == ("APPLICATION",):
            continue
        if (
            method in way.methods
            or not _ANY_METHOD.isdisjoint(way.methods)
            or (method == "HEAD" and "GET" in way.methods)
        ):
            return way, {name: convertors[name].convert(value) for name, value in found.groupdict().items()}
        status = 405
    return status


def _auths(uses: Iterable[GuardUse]) -> list[Auth[Any]]:
    return list(dict.fromkeys(auth for use in uses for auth in members_of(use.guard)))


async def _solve(
    connection: Request | WebSocket, part: Dependant, app: FastAPI, stack: AsyncExitStack
) -> HTTPException | str | None:
    """Return the refusal of a dependency, ``None`` where it passes, or the reason why it cannot be decided."""
    try:
        solved = await solve_dependencies(
            request=connection,
            dependant=Dependant(dependencies=[part]),
            dependency_overrides_provider=app,
            async_exit_stack=stack,
            embed_body_fields=False,
        )
    except HTTPException as refusal:
        return refusal
    except Exception as error:  # noqa: BLE001 - whatever a policy of the application provokes
        # Without its text, which may have a secret.
        return f"it failed with {type(error).__name__}"
    places = (".".join(map(str, error["loc"])) for error in solved.errors)
    return f"the request has no valid {', '.join(places)}" if solved.errors else None


def _checks(
    connection: HTTPConnection, uses: Sequence[GuardUse], result: HTTPException | str | None
) -> Iterator[Check]:
    failed = False
    for use in uses:
        name = use.guard.auth.name
        if failed:
            yield from (_not_reached(name, f"scope {scope}") for scope in use.scopes)
            continue
        for check in _credential_checks(connection, use, result):
            yield check
            failed = failed or check.passed is not True
    # A rule is checked after all that its dependency depends on.
    rules = [use for use in uses if use.rule is not None]
    blamed = getattr(result, "requirement", None)
    for use in reversed(rules):
        name, rule = use.guard.auth.name, str(use.rule)
        if failed:
            yield _not_reached(name, rule)
        elif isinstance(result, str):
            yield Check(auth=name, requirement=rule, passed=None, reason=result)
        elif result is not None and (blamed == rule or len(rules) == 1):
            yield _refused(name, rule, result)
            failed = True
        else:
            yield Check(auth=name, requirement=rule, passed=True)


def _credential_checks(
    connection: HTTPConnection, use: GuardUse, result: HTTPException | str | None
) -> Iterator[Check]:
    guard = use.guard
    name, decided = guard.auth.name, guard.decision.recall(connection)
    if isinstance(decided, Verified):
        yield Check(auth=name, requirement=_CREDENTIAL, passed=True)
        decision = decided.auth.dependency.decision
        for scope in use.scopes:
            if decision.covers(decided.grants, scope):
                yield Check(auth=name, requirement=f"scope {scope}", passed=True)
            else:
                yield Check(auth=name, requirement=f"scope {scope}", passed=False, status=403, reason="missing_scope")
        return
    is_none = decided is None or (guard.ignore_invalid and isinstance(decided, Unauthorized))
    if guard.optional and is_none and not use.scopes and not isinstance(result, str):
        yield Check(auth=name, requirement=f"{_CREDENTIAL}, optional", passed=True)
    elif isinstance(result, HTTPException):
        yield _refused(name, _CREDENTIAL, result)
    else:
        yield Check(auth=name, requirement=_CREDENTIAL, passed=None, reason=result)


def _not_reached(name: str, requirement: str) -> Check:
    return Check(auth=name, requirement=requirement, passed=None, reason="not reached")


def _refused(name: str, requirement: str, error: HTTPException) -> Check:
    status = error.status_code
    reason = error.reason if isinstance(error, AuthError) else ("not_found" if status == 404 else "refused")
    return Check(auth=name, requirement=requirement, passed=False, status=status, reason=reason)


def _needed(connection: HTTPConnection, uses: Sequence[GuardUse], checks: Sequence[Check]) -> Iterator[str]:
    refused = {check.requirement for check in checks if check.passed is False}
    for use in uses:
        decided = use.guard.decision.recall(connection)
        if not isinstance(decided, Verified):
            if _CREDENTIAL in refused:
                places = " or ".join(f"{auth.name} ({place_of(auth.scheme)})" for auth in members_of(use.guard))
                yield f"a valid credential of {places}"
            continue
        decision = decided.auth.dependency.decision
        missing = [scope for scope in use.scopes if not decision.covers(decided.grants, scope)]
        if missing:
            yield _smallest(decided, missing)
        if use.rule in refused:
            is_missing = any(check.reason == "not_found" for check in checks)
            yield f"an object that exists, and {use.rule}" if is_missing else str(use.rule)


def _smallest(verified: Verified[Any], missing: Sequence[str]) -> str:
    decision = verified.auth.dependency.decision
    grants = type(verified.grants)

    def covers(granted: Iterable[str], scope: str) -> bool:
        scopes = frozenset(granted)
        return decision.covers(grants(scopes, everything="*" in scopes), scope)

    others = {scope: [other for other in missing if other != scope] for scope in missing}
    needed = [scope for scope in missing if not covers(others[scope], scope)] or list(missing)
    roles = {} if decision.rules is None else decision.rules.roles
    sufficient = [role for role, scopes in roles.items() if all(covers(scopes, scope) for scope in missing)]
    text = f"the scope {needed[0]}" if len(needed) == 1 else f"the scopes {', '.join(needed)}"
    return text + (f", or the role {' or '.join(sorted(sufficient))}" if sufficient else "")


def _found(connection: HTTPConnection, auth: Auth[Any]) -> FoundCredential:
    decided = auth.dependency.decision.recall(connection)
    raw, reason = _extracted(connection, auth.scheme)
    found = raw is not None or reason is not None or decided is not None
    place, outcome = place_of(auth.scheme), "not asked" if found else "nothing found"
    if isinstance(decided, Verified):
        claims: Any = decided.principal if isinstance(decided.principal, Mapping) else {}
        who = {name: claims.get(claim) for name, claim in (("subject", "sub"), ("issuer", "iss"), ("key_id", "key_id"))}
        texts = {name: value if isinstance(value, str) else None for name, value in who.items()}
        return FoundCredential(auth=auth.name, scheme=place, found=True, outcome="verified", **texts)
    if isinstance(decided, AuthError):
        outcome, reason = "refused", decided.reason
    elif raw is not None and not auth.recognises(raw):
        outcome, reason = "refused", "unrecognised"
    return FoundCredential(auth=auth.name, scheme=place, found=found, outcome=outcome, reason=reason)


def _extracted(connection: HTTPConnection, scheme: Scheme) -> tuple[str | None, str | None]:
    try:
        return scheme.extract(connection), None
    except AuthError as error:
        return None, error.reason
    except ConfigurationError:
        return None, None  # a callable, which FastAPI alone resolves


def _grants(connection: HTTPConnection) -> Iterator[GrantSource]:
    for verified in verified_on(connection):
        principal, grants, auth = verified.principal, verified.grants, verified.auth
        rules = auth.dependency.decision.rules
        if rules is None:
            continue
        granted = {*grants.scopes, *(f"role {role}" for role in grants.roles)}
        key = principal.get("key_id") if isinstance(principal, Mapping) else None
        sources = [(grant, source) for grant, source in rules.sources_of(principal) if grant in granted]
        for grant, source in sources:
            is_stored = key is not None and source.startswith("claim ")
            yield GrantSource(auth=auth.name, grant=grant, source=f"key {key}" if is_stored else source)
        for grant in sorted(granted - {grant for grant, _ in sources}):
            yield GrantSource(auth=auth.name, grant=grant, source=f"{type(auth).__name__}.grants_of")
        if grants.is_admin:
            yield GrantSource(auth=auth.name, grant="administrator", source="claim is_admin")
