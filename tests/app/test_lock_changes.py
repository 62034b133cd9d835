"""The comparison of two states of an application's authorization."""

from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_guard import AnyAuth, APIKeyScheme, Auth, ScopesAuth, configure_app
from fastapi_guard.app.lock import authorization_of
from fastapi_guard.app.lock_changes import lock_changes
from support.asgi import endpoint


class Tokens(ScopesAuth):
    """An Auth with scopes."""

    name = "tokens"

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept every credential."""
        return {"sub": raw}


A = Tokens()
KEYS, SESSIONS = Tokens(APIKeyScheme("X-Key"), name="keys"), Tokens(APIKeyScheme("X-Session"), name="sessions")
BOTH, ALL = AnyAuth(A, KEYS), AnyAuth(A, KEYS, SESSIONS)
PRESENT = Auth(APIKeyScheme("X-Any"), name="tokens")
OWNER = {"owner": "author"}


def app_with(*guards: Any, path: str = "/items", **options: Any) -> FastAPI:
    """Return an application with one route behind these guards."""
    app = FastAPI(openapi_url=None)
    app.get(path, dependencies=list(guards), **options)(endpoint)
    return app


def owned(**options: Any) -> Any:
    """Return a guard of an owner."""
    return A.owned(endpoint, **{**OWNER, **options})


def policy(claims: dict[str, Any]) -> bool:
    """Let every caller with claims pass."""
    return bool(claims)


# Before, after, and the verdict; the reverse has the opposite one.
PAIRS = [
    ([A.authenticated()], [], "weakened"),
    ([A.requires("items:edit")], [A.authenticated()], "weakened"),
    ([A.requires("items:edit")], [A.requires("items:read")], "weakened"),
    ([A.requires("items:*")], [A.requires("items:edit")], "weakened"),
    ([A.requires("a", "b")], [A.requires("a")], "weakened"),
    ([A.authenticated()], [A.optional()], "weakened"),
    ([A.requires("items:read")], [A.requires_any("items:read", "x")], "weakened"),
    ([A.requires_any("a", "b")], [A.requires_any("a", "b", "c")], "weakened"),
    ([A.requires_role("a")], [A.requires_role("a", "b")], "weakened"),
    ([A.requires_admin()], [A.authenticated()], "weakened"),
    ([A.requires("a"), A.requires_admin()], [A.requires_admin()], "weakened"),
    ([owned()], [owned(or_scope="items:*")], "weakened"),
    ([owned(or_scope="items:*")], [A.authenticated()], "weakened"),
    ([A.requires_recent(60)], [A.requires_recent(600)], "weakened"),
    ([A.requires_factor("otp", max_age=60)], [A.requires_factor("otp", max_age=600)], "weakened"),
    ([A.requires_factor("otp", max_age=60)], [A.requires_factor("otp")], "weakened"),
    ([A.allows(policy)], [A.authenticated()], "weakened"),
    ([A.authenticated()], [PRESENT.authenticated()], "weakened"),
    ([BOTH.authenticated(via=["keys"])], [BOTH.authenticated()], "weakened"),
    ([BOTH.authenticated()], [ALL.authenticated()], "weakened"),
    ([A.authenticated(), KEYS.authenticated()], [KEYS.authenticated()], "weakened"),
]
# In both directions a caller may pass that was refused before.
OTHERS = [
    ([A.requires("a")], [A.requires("b")]),
    ([A.requires_role("a")], [A.requires_role("b")]),
    ([A.requires_recent(60)], [A.requires_factor("otp", max_age=60)]),
    ([A.requires_recent(60)], [A.requires_admin()]),
    ([owned()], [owned(owner="author_id")]),
    ([A.authenticated()], [KEYS.authenticated()]),
    ([A.authenticated()], [BOTH.authenticated()]),
    ([A.allows(policy)], [A.requires_admin()]),
]
SAME = [
    ([owned()], [owned(hide=True)]),
    ([A.requires_any("a", "b")], [A.requires_any("b", "a")]),
    ([], [A.optional()]),
]


def verdicts(before: FastAPI, after: FastAPI) -> list[str]:
    """Return the verdicts of what differs."""
    return [change.verdict for change in lock_changes(after, authorization_of(before).text)]


@pytest.mark.parametrize(("before", "after", "verdict"), PAIRS, ids=range(len(PAIRS)))
def test_a_guard_that_is_dropped_or_loosened(before: list[Any], after: list[Any], verdict: str) -> None:
    """A way in is weakened where a caller may pass that was refused before; the reverse is tightened."""
    old, new = app_with(*before), app_with(*after)
    assert verdicts(old, new) == [verdict]
    assert verdicts(new, old) == ["tightened"]
    assert verdicts(old, old) == verdicts(new, new) == []


@pytest.mark.parametrize(("before", "after"), OTHERS, ids=range(len(OTHERS)))
def test_a_guard_that_is_replaced(before: list[Any], after: list[Any]) -> None:
    """A change counts as weakened where it cannot be excluded that a refused caller passes now."""
    old, new = app_with(*before), app_with(*after)
    assert verdicts(old, new) == verdicts(new, old) == ["weakened"]


@pytest.mark.parametrize(("before", "after"), SAME, ids=range(len(SAME)))
def test_a_guard_with_the_same_effect(before: list[Any], after: list[Any]) -> None:
    """A way in is changed, in both directions, where the same callers pass by another text."""
    old, new = app_with(*before), app_with(*after)
    assert verdicts(old, new) == verdicts(new, old) == ["changed"]


def test_routes_that_come_and_go() -> None:
    """A new route is added, a missing one removed, and both are lines that a reviewer reads."""
    old, new = app_with(A.requires("a"), path="/old"), app_with(path="/new")
    changes = lock_changes(new, authorization_of(old).text)
    assert [str(change) for change in changes] == [
        "+ added     GET /new\n      now:    unguarded",
        "- removed   GET /old\n      before: tokens: a",
    ]
    assert [change.as_dict() for change in changes] == [
        {"change": "added", "subject": "GET /new", "before": None, "after": "unguarded"},
        {"change": "removed", "subject": "GET /old", "before": "tokens: a", "after": None},
    ]


def test_a_report() -> None:
    """A weakened way has what was required before and what is now, in words, and comes first."""
    old = app_with(BOTH.requires("a", via=["keys"]), A.optional(), PRESENT.authenticated())
    new = app_with(owned(or_scope="b"))
    new.get("/first")(endpoint)
    assert [str(change) for change in lock_changes(new, authorization_of(old).text)] == [
        (
            "! weakened  GET /items\n"
            "      before: any via keys: a and tokens (optional) and tokens (presence only)\n"
            "      now:    tokens: owner author or b"
        ),
        "+ added     GET /first\n      now:    unguarded",
    ]


def test_a_page_that_becomes_public() -> None:
    """A route that configure_app lists as public is changed: it was unguarded before."""
    public = app_with()
    configure_app(public, public=["/items"])
    assert verdicts(app_with(), public) == ["changed"]


def with_roles(**options: Any) -> FastAPI:
    """Return an application whose Auth has these roles."""
    return app_with(Tokens(**options).authenticated())


ROLES = [
    ({"roles": {"r": ["items:read"]}}, {"roles": {"r": ["items:edit"]}}, "weakened", "tightened"),
    ({"roles": {"r": ["items:read"]}}, {"roles": {"r": ["items:read", "x"]}}, "weakened", "tightened"),
    ({"roles": {"r": ["items:read"]}}, {"roles": {"r": ["*"]}}, "weakened", "tightened"),
    ({"roles": {"r": ["items:edit"]}}, {"roles": {"r": ["items:edit", "items:read"]}}, "changed", "changed"),
    ({"roles": {"r": ["a"]}}, {"roles": {"r": ["a"], "s": []}}, "added", "removed"),
    ({}, {"roles": {"r": ["a"]}}, "added", "removed"),
    ({"roles": {"r": ["a"]}}, {"roles": {"r": ["a"]}, "default_role": "r"}, "weakened", "tightened"),
]


@pytest.mark.parametrize(("before", "after", "forth", "back"), ROLES, ids=range(len(ROLES)))
def test_roles(before: dict[str, Any], after: dict[str, Any], forth: str, back: str) -> None:
    """A role that grants more is weakened, one that grants less is tightened."""
    old, new = with_roles(**before), with_roles(**after)
    assert verdicts(old, new) == [forth]
    assert verdicts(new, old) == [back]


def test_a_role_in_words() -> None:
    """A change of a role has its scopes before and now."""
    before = authorization_of(with_roles(roles={"r": ["a"]})).text
    (change,) = lock_changes(with_roles(roles={"r": ["a"], "s": []}), before)
    assert str(change) == "+ added     role s of tokens\n      now:    no scopes"


def test_an_auth_that_is_gone() -> None:
    """Scopes of an Auth that the application has no longer are compared by their text."""
    old = app_with(Tokens(name="gone").requires("items:edit"))
    assert verdicts(old, app_with()) == ["weakened"]


async def test_what_the_tables_stand_for() -> None:
    """The Auth and the policy of the tables accept a caller."""
    assert policy(await A.verify("ada"))
