"""The requirement of a guard in words: in an audit, and in the event of a refusal."""

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, HTTPException, Request, Response, params

from fastapi_guard import ScopesAuth
from fastapi_guard.auth.guard import alternatives_of, rule_of, statuses_of
from fastapi_guard.auth.refusals import copied_error
from fastapi_guard.events import Event
from support.asgi import call
from support.ids import case_id


class Tokens(ScopesAuth):
    """An Auth that grants ``items:read`` to every caller."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Accept anything."""
        return {"sub": "ada", "scope": "items:read"}


def load_post() -> Any:
    """Return a post of another user."""
    return SimpleNamespace(author_id="eve")


def nobody(claims: dict[str, Any]) -> None:
    """Return no user."""


def never(claims: dict[str, Any]) -> bool:
    """Allow nothing."""
    return False


def writer(post: Any) -> str:
    """Return the owner of a post."""
    return str(post.author_id)


Write = Callable[[ScopesAuth], params.Depends]
GUARDS: list[tuple[Write, str, int, str]] = [
    (lambda auth: auth.user(nobody), "user nobody", 401, "unknown_user"),
    (lambda auth: auth.allows(never), "policy never", 403, "policy"),
    (lambda auth: auth.owned(load_post, owner="author_id"), "owner author_id", 403, "not_owner"),
    (lambda auth: auth.owned(load_post, owner=writer), "owner writer", 403, "not_owner"),
    (
        lambda auth: auth.owned(load_post, owner="author_id", hide=True),
        "owner author_id, else 404",
        404,
        "not_owner",
    ),
    (
        lambda auth: auth.owned(load_post, owner=writer, or_scope="posts:edit", hide=True),
        "owner writer or posts:edit, else 404",
        404,
        "not_owner",
    ),
    (lambda auth: auth.requires_recent(60), "login within 60 s", 401, "stale_login"),
    (lambda auth: auth.requires_factor("otp"), "factor otp", 401, "stale_login"),
    (
        lambda auth: auth.requires_factor("otp", max_age=timedelta(minutes=1)),
        "factor otp within 60 s",
        401,
        "stale_login",
    ),
    (lambda auth: auth.requires_role("editor", "root"), "role editor or root", 403, "missing_role"),
    (lambda auth: auth.requires_admin(), "admin", 403, "not_admin"),
    (lambda auth: auth.requires_tenant(), "tenant tenant", 403, "other_tenant"),
]


@pytest.mark.parametrize(("write", "rule", "status", "reason"), GUARDS, ids=case_id)
async def test_what_a_guard_requires(write: Write, rule: str, status: int, reason: str) -> None:
    """The rule is readable at the dependency; the event and the error of a refusal have it."""
    events: list[Event] = []
    errors: list[Any] = []
    auth = Tokens(on_event=events.append)
    guard = write(auth)
    assert rule_of(guard.dependency) == rule
    assert statuses_of(guard.dependency) == ({404} if rule.startswith("owner") else set())
    app = FastAPI()

    async def index(found: Any) -> None:
        """Return nothing."""

    index.__annotations__["found"] = Annotated[Any, guard]
    app.get("/{tenant}")(index)

    @app.exception_handler(HTTPException)
    async def answered(_: Request, error: HTTPException) -> Response:
        errors.append(error)
        return Response(status_code=error.status_code)

    assert (await call(app, "/acme", "any")).status == status
    assert events[1:] == [Event("refused", "auth", status, reason, subject="ada")]
    assert [events[1].requirement, errors[0].requirement] == [rule, rule]


async def test_scopes_that_a_guard_requires() -> None:
    """Of one scope and of alternatives, the event names what is missing."""
    events: list[Event] = []
    auth = Tokens(on_event=events.append)
    app = FastAPI()
    either = auth.requires_any("items:edit", "orders:read")
    app.get("/all", dependencies=[auth.requires("items:read", "items:edit", "orders:read")])(lambda: None)
    app.get("/any", dependencies=[either])(lambda: None)
    errors: list[Any] = []

    @app.exception_handler(HTTPException)
    async def answered(_: Request, error: HTTPException) -> Response:
        errors.append(error)
        return Response(status_code=error.status_code)

    assert rule_of(either.dependency) == "any of items:edit, orders:read"
    assert alternatives_of(rule_of(either.dependency)) == ("items:edit", "orders:read")
    for path in ("/all", "/any"):
        assert (await call(app, path, "any")).status == 403
    required = ["items:edit", "any of items:edit, orders:read"]
    assert [event.requirement for event in events if event.name == "refused"] == required
    assert [error.requirement for error in errors] == required


async def test_an_error_of_an_application() -> None:
    """An HTTPException of the application's own verification is reported as a refusal, without a reason of ours."""
    events: list[Event] = []

    class Teapot(Tokens):
        """An Auth that raises an error of its own."""

        async def verify(self, raw: str) -> dict[str, Any]:
            """Accept nothing."""
            raise HTTPException(418)

    app = FastAPI()
    app.get("/pot", dependencies=[Teapot(on_event=events.append).authenticated()])(lambda: None)
    assert (await call(app, "/pot", "any")).status == 418
    assert events == [Event("refused", "auth", 418, "refused")]
    assert (events[0].route, events[0].requirement) == ("/pot", None)


@pytest.mark.parametrize(
    ("claims", "is_malformed"),
    [
        ({}, False),
        ({"tenant": "acme"}, False),
        ({"tenant": 1}, False),
        ({"tenant": ["acme", None]}, False),
        ({"tenant": None}, False),
        ({"tenant": []}, False),
        ({"tenant": {"id": "acme"}}, True),
        ({"tenant": [None]}, True),
        ({"tenant": 1.5}, True),
        ({"tenant_id": None, "tenant": {"id": "acme"}}, True),
        ({"tenant_id": "acme", "tenant": {"id": "acme"}}, False),
    ],
    ids=repr,
)
def test_a_tenant_of_another_type(claims: dict[str, Any], is_malformed: bool) -> None:
    """A claim that names tenants, and none that counts, is not the same as a caller without a tenant."""
    decision: Any = Tokens().dependency.decision
    assert decision.has_malformed_tenant(claims) is is_malformed
    other: Any = Tokens(tenant_claims=["org"]).dependency.decision
    assert not other.has_malformed_tenant({**claims, "org": "acme"})


def test_a_copy_of_an_error() -> None:
    """It has the class, the arguments and the attributes, without a call of the constructor."""

    class Teapot(HTTPException):
        """An error whose constructor wants something else."""

        def __init__(self, tea: str) -> None:
            """Keep the tea."""
            super().__init__(418)
            self.tea = tea

    copy: Any = copied_error(Teapot("green"), {"requirement": "a pot"})
    assert type(copy) is Teapot
    assert (copy.args, copy.tea, copy.status_code, copy.requirement) == (("green",), "green", 418, "a pot")


def test_what_has_no_rule() -> None:
    """Any other callable has no rule, no alternatives and no statuses of its own."""
    for dependency in (load_post, Tokens().authenticated().dependency):
        assert (rule_of(dependency), statuses_of(dependency)) == (None, set())
    for rule in (None, "admin", "role any of a, b"):
        assert alternatives_of(rule) == ()
