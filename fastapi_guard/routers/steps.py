"""The routes of one login: first proofs, second steps, and step-up, for tokens and for sessions alike."""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Request, Response
from fastapi.params import Security
from pydantic import BaseModel

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import Forbidden, Unauthorized
from fastapi_guard.login.cookies import CookieSettings, browser_in, cookie_in, cookie_name
from fastapi_guard.login.factor import Factor, FirstFactor
from fastapi_guard.login.login import Complete, Login, Pending
from fastapi_guard.login.passkey import KIND as PASSKEY
from fastapi_guard.login.second_step import LOGIN_EXPIRED
from fastapi_guard.login.state import digest_of
from fastapi_guard.routers.bodies import described, described_json, is_form, json_in, required, texts_in
from fastapi_guard.routers.login_pages import LoginPages, form_of
from fastapi_guard.routers.responses import Responses, described_statuses

_BROWSER_SECONDS: Final = 900
_BROWSER_BYTES: Final = 32
# Fields of a step that are not part of the proof.
_OWN: Final = ("pending", "factor", "trust", "next", "scope")

REFUSED: Final[Responses] = described_statuses(401, 403, 413, 415, 422, 429, 503)
# Nothing is proven yet.
BEGINNING_REFUSED: Final[Responses] = described_statuses(403, 413, 415, 422, 429, 503)


class SecondStepNeeded(BaseModel):
    """The answer to a first proof that is right, where a second factor is needed.

    Attributes:
        factors: The kinds that the user can prove, the strongest first.
        expires_in: Seconds until the login has to begin again.
        pending: What the second step takes; not where it is in a cookie.
    """

    factors: list[str]
    expires_in: int
    pending: str | None = None


class Answers(Protocol):
    """The part of the routes that differs between tokens and sessions."""

    @property
    def pages(self) -> LoginPages | None:
        """The pages that a form is redirected to."""
        ...  # pragma: no cover

    @property
    def responses(self) -> Responses:
        """The success of a login in OpenAPI."""
        ...  # pragma: no cover

    @property
    def renewed(self) -> Responses:
        """The success of a step-up in OpenAPI."""
        ...  # pragma: no cover

    def check(self, request: Request, *, sets_cookie: bool = False) -> None:
        """Reject a request of another site's page where a cookie is read or set."""
        ...  # pragma: no cover

    async def complete(self, request: Request, outcome: Complete, fields: Mapping[str, Any]) -> Response:
        """Return the answer with the credential."""
        ...  # pragma: no cover

    def pending(self, pending: Pending) -> Response:
        """Return the answer with the pending login."""
        ...  # pragma: no cover

    def pending_id(self, request: Request, fields: Mapping[str, Any]) -> str | None:
        """Return the id of the pending login."""
        ...  # pragma: no cover

    async def renew(self, request: Request, claims: Claims, outcome: Complete) -> Response:
        """Return the answer with the credential that was stepped up."""
        ...  # pragma: no cover

    async def is_valid(self, claims: Claims) -> bool:
        """Return whether the login of these claims is still valid."""
        ...  # pragma: no cover


def add_login(router: APIRouter, login: Login, answers: Answers) -> None:
    """Add ``POST /login``, and a route for each kind of factor that can begin or complete a login."""
    completed: Responses = {**REFUSED, **answers.responses}
    # Without factors no login waits for a second step.
    begun = {**completed, 202: {"model": SecondStepNeeded}} if login.factors.kinds else completed

    if login.passwords is not None:

        @router.post(
            "/login",
            summary="Log in",
            status_code=success_of(answers.responses),
            responses=begun,
            openapi_extra=described(["username", "password"], "scope"),
        )
        @form_of("login", answers.pages)
        async def log_in(request: Request) -> Response:
            """Log in with a username, in JSON also called ``email``, and a password."""
            answers.check(request)
            await login.limits.count_address(request)
            texts = await _texts(request)
            username, password = required(texts, "username", "email"), required(texts, "password")
            outcome = await login.with_password(username, password, connection=request)
            return await _answer(answers, request, outcome, texts)

    if login.factors.kinds:

        @router.post(
            "/login/challenge",
            summary="Begin a second step",
            responses=REFUSED,
            openapi_extra=described(["factor"], "pending"),
        )
        @form_of("challenge", answers.pages)
        async def challenge(request: Request) -> dict[str, Any]:
            """Return what the client needs to prove a factor; a kind that sends a code sends it."""
            answers.check(request)
            await login.limits.count_address(request)
            fields = await _fields(request)
            pending = _pending(answers, request, fields)
            return dict(await login.challenge(pending, _text(fields, "factor"), connection=request))

    for kind, factor in login.factors.kinds.items():
        _add_second(router, login, answers, kind, completed)
        if isinstance(factor, FirstFactor):
            # A passkey that begins a login has verified the user, and needs no second step.
            _add_first(router, login, answers, factor, completed if kind == PASSKEY else begun)


def _add_second(router: APIRouter, login: Login, answers: Answers, kind: str, responses: Responses) -> None:
    @router.post(
        f"/login/{kind}",
        summary=f"Complete a login: {kind}",
        status_code=success_of(answers.responses),
        responses=responses,
        openapi_extra=_proof_of(kind, "pending", "trust"),
    )
    @form_of("login", answers.pages)
    async def second_step(request: Request) -> Response:
        """Complete a pending login by this factor; with ``trust`` the device needs none for a while."""
        answers.check(request)
        await login.limits.count_address(request)
        fields = await _fields(request)
        trusts = fields.get("trust") in (True, "true", "on", "1")
        if trusts:
            answers.check(request, sets_cookie=True)
            _check_trust(login)
        pending = _pending(answers, request, fields)
        outcome = await login.with_factor(pending, kind, _proof(fields), connection=request)
        response = await answers.complete(request, outcome, fields)
        if trusts and login.devices is not None:
            await login.devices.trust(response, outcome)
        return response


def _add_first(router: APIRouter, login: Login, answers: Answers, factor: Factor, responses: Responses) -> None:
    kind, cookie = factor.name, CookieSettings(name=cookie_name("browser", login.name))

    @router.post(
        f"/login/{kind}/begin",
        summary=f"Begin a login: {kind}",
        responses=BEGINNING_REFUSED,
        openapi_extra=described([], "username"),
    )
    @form_of("begin", answers.pages, kind)
    async def begin(request: Request, response: Response) -> dict[str, Any]:
        """Return what the client needs to log in with this factor; the answer is the same for an unknown user."""
        answers.check(request, sets_cookie=True)
        await login.limits.count_address(request)
        fields = await _fields(request)
        raw = browser_in(request, cookie)
        name = fields.get("username", fields.get("email"))
        offered = await login.offer(
            kind, login=name if isinstance(name, str) else None, binding=digest_of(raw), connection=request
        )
        cookie.set(response, raw, max_age=_BROWSER_SECONDS)
        return dict(offered)

    @router.post(
        f"/login/{kind}/finish",
        summary=f"Log in: {kind}",
        status_code=success_of(answers.responses),
        responses=responses,
        openapi_extra=_proof_of(kind, "scope", "token"),
    )
    @form_of("login", answers.pages)
    async def finish(request: Request) -> Response:
        """Log in with this factor, in the browser that began it."""
        answers.check(request, sets_cookie=True)
        await login.limits.count_address(request)
        fields = await _fields(request)
        # Without the cookie the proof is of another browser.
        binding = digest_of(cookie_in(request, cookie) or secrets.token_urlsafe(_BROWSER_BYTES))
        outcome = await login.with_first(kind, _proof(fields), binding=binding, connection=request)
        return await _answer(answers, request, outcome, fields)


def add_step_up(router: APIRouter, login: Login, answers: Answers, authenticated: Security) -> None:
    """Add ``GET`` and ``POST /login/step-up``, and ``POST /login/step-up/challenge``, behind a guard."""

    @router.get("/login/step-up", summary="List the factors for a step-up")
    async def kinds(claims: Annotated[Claims, authenticated]) -> dict[str, list[str]]:
        """Return what the caller can prove: kinds of factors, and ``password``."""
        return {"factors": await login.step_up.kinds(claims)}

    @router.post(
        "/login/step-up/challenge",
        summary="Begin a step-up",
        responses=REFUSED,
        openapi_extra=described(["factor"]),
    )
    @form_of("step-up challenge", answers.pages)
    async def challenge(request: Request, claims: Annotated[Claims, authenticated]) -> dict[str, Any]:
        """Return what the client needs to prove a factor again; a kind that sends a code sends it."""
        fields = await _fields(request)
        return dict(await login.step_up.challenge(claims, _text(fields, "factor"), connection=request))

    @router.post(
        "/login/step-up",
        summary="Step up",
        status_code=success_of(answers.renewed),
        responses={**REFUSED, **answers.renewed},
        openapi_extra=described(["factor"], "code", "password"),
    )
    @form_of("step-up", answers.pages)
    async def step_up(request: Request, claims: Annotated[Claims, authenticated]) -> Response:
        """Prove a factor or the password again (RFC 9470)."""
        await login.limits.count_address(request)
        fields = await _fields(request)
        factor = _text(fields, "factor")
        outcome = await login.step_up.complete(claims, factor, _proof(fields), connection=request)
        return await answers.renew(request, claims, outcome)


async def _answer(
    answers: Answers, request: Request, outcome: Complete | Pending, fields: Mapping[str, Any]
) -> Response:
    if isinstance(outcome, Pending):
        return answers.pending(outcome)
    return await answers.complete(request, outcome, fields)


def success_of(responses: Responses) -> int:
    """Return the status of a success, the first of these, so that OpenAPI lists no other one."""
    return int(next(iter(responses)))


def _check_trust(login: Login) -> None:
    if login.devices is None:
        raise Forbidden(reason="no_trusted_devices")


def _pending(answers: Answers, request: Request, fields: Mapping[str, Any]) -> str:
    pending = answers.pending_id(request, fields)
    if pending is None:
        raise Unauthorized(LOGIN_EXPIRED, reason="unknown_pending")
    return pending


def _proof(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _OWN}


def _proof_of(kind: str, *more: str) -> dict[str, Any]:
    return described_json("credential", *more) if kind == PASSKEY else described([], "code", *more)


def _text(fields: Mapping[str, Any], name: str) -> str:
    return required({key: value for key, value in fields.items() if isinstance(value, str)}, name)


async def _texts(request: Request) -> dict[str, str]:
    texts = await texts_in(request)
    request.state.form_next = texts.get("next")
    return texts


async def _fields(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = await texts_in(request) if is_form(request) else await json_in(request)
    request.state.form_next = fields.get("next")
    return fields


def with_cookies(response: Response, redirect: Response) -> Response:
    """Return ``redirect`` with the cookies of ``response`` set too."""
    for value in response.headers.getlist("set-cookie"):
        redirect.headers.append("set-cookie", value)
    return redirect
