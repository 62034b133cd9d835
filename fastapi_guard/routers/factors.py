"""The second factors of a user: enrol, confirm, list, rename, remove, and new recovery codes.

Adding a factor needs a login of the last ten minutes, and removing one a recent proof of equal strength (RFC 9470:
401 with ``insufficient_user_authentication``). Passkeys are enrolled by JSON alone.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final

from fastapi import APIRouter, HTTPException, Request, params
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from fastapi_guard.auth import AnyAuth, ScopesAuth
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import STALE_LOGIN, ConfigurationError, Forbidden
from fastapi_guard.login.credentials import LAST_WAY
from fastapi_guard.login.enrolled import EnrolledFactor, checked_name
from fastapi_guard.login.login import Login
from fastapi_guard.login.passkey import KIND as PASSKEY
from fastapi_guard.login.second_step import locale_in
from fastapi_guard.routers.account_routes import challenged, login_user
from fastapi_guard.routers.bodies import described, is_form, json_in, required, texts_in
from fastapi_guard.routers.form_pages import FormPage, PageRoute, checked_pages, with_page
from fastapi_guard.routers.issuers import check_issuers
from fastapi_guard.routers.responses import PathText, described_statuses, never_stored_router
from fastapi_guard.stores.arguments import instance_of

WRONG: Final = "The code is wrong, or the enrolment has expired"
_ROUTES: Final = ("confirm", "rename", "remove")
_CODES: Final[Mapping[str, str]] = {WRONG: "wrong_code", STALE_LOGIN: "log_in_again", LAST_WAY: "last_way"}
_REFUSALS: Final = (401, 403, 413, 415, 422, 429, 503)
_RENAMING: Final = (401, 403, 404, 413, 415, 422, 503)
_REMOVAL: Final = (401, 403, 404, 422, 503)  # without a body


class FactorInfo(BaseModel):
    """A factor that the caller has enrolled.

    Attributes:
        id: By which it is renamed and removed.
        kind: Such as ``"totp"``.
        name: As the user calls it.
        created_at: Seconds since the epoch.
        used_at: Seconds since the epoch; ``None`` before the first time.
    """

    # What a kind shows beside these, such as how many recovery codes are left.
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    id: str
    kind: str
    name: str
    created_at: float
    used_at: float | None


class FactorList(BaseModel):
    """The factors of the caller, and the kinds that can be enrolled."""

    factors: list[FactorInfo]
    kinds: list[str]


class BegunFactor(BaseModel):
    """An enrolment that has begun. Secrets in it are in this answer and nowhere else.

    Attributes:
        enrolment: What the confirmation takes; ``None`` where the factor is enrolled already.
        expires_in: Seconds until it has to be confirmed.
        factor: The factor.
    """

    # What the client needs: a secret, a QR code, the options of a passkey, recovery codes.
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    enrolment: str | None = Field(repr=False)
    expires_in: int
    factor: FactorInfo


def factors_router(
    login: Login,
    auth: ScopesAuth | AnyAuth,
    *,
    pages: Mapping[str, FormPage] | None = None,
    prefix: str = "",
    tags: Iterable[str] = ("factors",),
) -> APIRouter:
    """Serve ``/factors``.

    Args:
        login: Its kinds of factors can be enrolled.
        auth: Guards every route.
        pages: Where a browser goes after the post of a form: ``{"confirm": FormPage(...)}``, ``rename``, ``remove``.
        prefix: Put before each path.
        tags: In OpenAPI.

    Raises:
        ConfigurationError: An argument has the wrong type, or the Login has no factors.
    """
    instance_of("login", login, Login, "a Login")
    check_issuers(instance_of("auth", auth, ScopesAuth, "an Auth with scopes, such as a SessionAuth"))
    router = never_stored_router(prefix, tags, route_class=PageRoute)
    routes = _FactorRoutes(login, router, checked_pages(pages, _ROUTES), auth)
    routes.serve_list()
    routes.serve_enrolment()
    routes.serve_changes()
    return router


class _FactorRoutes:
    """The routes in their groups."""

    def __init__(
        self, login: Login, router: APIRouter, pages: Mapping[str, FormPage], auth: ScopesAuth | AnyAuth
    ) -> None:
        """Add routes to ``router``."""
        if not login.factors.kinds:
            msg = 'the Login has no factors to enrol: Login(..., second=[TOTP(key=..., issuer="Shop")])'
            raise ConfigurationError(msg)
        self._login = login
        self._router = router
        self._pages = pages
        self._auth = auth
        self._authenticated: params.Security = auth.authenticated()

    def serve_list(self) -> None:
        """Serve ``GET /factors``."""

        @self._router.get("/factors", summary="List one's factors")
        async def own(claims: Annotated[Claims, self._authenticated]) -> FactorList:
            user = await login_user(self._login, claims, self._auth)
            factors = await self._login.factors.of(user.subject_id)
            return FactorList(
                factors=[self._described(factor) for factor in factors], kinds=list(self._login.factors.kinds)
            )

    def serve_enrolment(self) -> None:
        """Serve ``POST /factors/confirm`` and ``POST /factors/{kind}``."""
        enrolments = self._login.enrolments

        @self._router.post(
            "/factors/confirm",
            summary="Confirm a factor",
            responses=described_statuses(*_REFUSALS),
            openapi_extra=described(["enrolment"], "code"),
        )
        @with_page(self._pages.get("confirm"), _CODES)
        async def confirm(request: Request, claims: Annotated[Claims, self._authenticated]) -> FactorInfo:
            """Confirm a factor by a ``code`` of it, or in JSON by the ``credential`` of a passkey."""
            await self._login.limits.count(None, request)
            body = await _body(request)
            enrolment = body.get("enrolment")
            if not isinstance(enrolment, str):
                raise RequestValidationError([{"type": "missing", "loc": ("body", "enrolment"), "msg": "Needed"}])
            user = await login_user(self._login, claims, self._auth)
            factor = await enrolments.confirm(user, enrolment, body, binding=enrolment_binding(claims))
            if factor is None:
                raise Forbidden(WRONG, reason="wrong_enrolment")
            return self._described(factor)

        @self._router.post(
            "/factors/{kind}",
            summary="Enrol a factor",
            responses=described_statuses(*_REFUSALS, 404),
            openapi_extra=described([], "name"),
        )
        async def enrol(
            kind: PathText, request: Request, claims: Annotated[Claims, self._authenticated]
        ) -> BegunFactor:
            """Begin to enrol a factor; recovery codes are complete by this, and replace those of before."""
            await self._login.limits.count(None, request)
            if kind not in self._login.factors.kinds:
                raise HTTPException(404)
            if kind == PASSKEY and is_form(request):
                raise HTTPException(415)
            body = await _body(request)
            name = body.get("name")
            user = await login_user(self._login, claims, self._auth)
            with challenged(self._auth):
                begun = await enrolments.begin(
                    kind,
                    user,
                    body,
                    binding=enrolment_binding(claims),
                    name=name if isinstance(name, str) and name else None,
                    claims=claims,
                    locale=locale_in(request),
                )
            if begun is None:
                raise RequestValidationError([{"type": "rejected", "loc": ("body", "name"), "msg": "Not possible"}])
            own = {"enrolment": begun.enrolment, "expires_in": begun.expires_in, "factor": _info(begun.factor)}
            return BegunFactor.model_validate({**begun.shown, **own})

    def serve_changes(self) -> None:
        """Serve what renames and removes: ``PATCH`` and ``DELETE``, and ``POST`` for forms."""
        enrolments = self._login.enrolments

        @self._router.post(
            "/factors/{factor_id}/rename",
            summary="Rename a factor by a form",
            status_code=204,
            responses=described_statuses(*_RENAMING),
            openapi_extra=described(["name"]),
        )
        @self._router.patch(
            "/factors/{factor_id}",
            summary="Rename a factor",
            status_code=204,
            responses=described_statuses(*_RENAMING),
            openapi_extra=described(["name"]),
        )
        @with_page(self._pages.get("rename"), _CODES)
        async def rename(factor_id: PathText, request: Request, claims: Annotated[Claims, self._authenticated]) -> None:
            name = required(await texts_in(request), "name")
            user = await login_user(self._login, claims, self._auth)
            if checked_name(name) is None:
                raise RequestValidationError([{"type": "rejected", "loc": ("body", "name"), "msg": "Not a name"}])
            if not await enrolments.rename(user, factor_id, name):
                raise HTTPException(404)

        @self._router.post(
            "/factors/{factor_id}/remove",
            summary="Remove a factor by a form",
            status_code=204,
            responses=described_statuses(*_REMOVAL),
        )
        @self._router.delete(
            "/factors/{factor_id}",
            summary="Remove a factor",
            status_code=204,
            responses=described_statuses(*_REMOVAL),
        )
        @with_page(self._pages.get("remove"), _CODES)
        async def remove(factor_id: PathText, claims: Annotated[Claims, self._authenticated]) -> None:
            """Remove a factor. A pending login of before does not complete."""
            user = await login_user(self._login, claims, self._auth)
            with challenged(self._auth):
                removed = await enrolments.remove(user, factor_id, binding=enrolment_binding(claims), claims=claims)
            if not removed:
                raise HTTPException(404)

    def _described(self, factor: EnrolledFactor) -> FactorInfo:
        return _info(factor, self._login.factors.describe(factor))


def _info(factor: EnrolledFactor, described: Mapping[str, Any] | None = None) -> FactorInfo:
    own = {name: getattr(factor, name) for name in ("id", "kind", "name", "created_at", "used_at")}
    return FactorInfo.model_validate({**(described or {}), **own})


async def _body(request: Request) -> Mapping[str, Any]:
    return await (texts_in(request) if is_form(request) else json_in(request))


def enrolment_binding(claims: Claims) -> str:
    """Return the ``binding`` of the enrolments here: what is begun in one session or family is unknown in another.

    For a page that begins an enrolment by itself: ``login.enrolments.begin(..., binding=enrolment_binding(claims))``.
    """
    return f"factors:{claims.get('sid') or claims.get('jti')}"
