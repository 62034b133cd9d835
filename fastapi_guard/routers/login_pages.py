"""Form posts of pages without script: a redirect after each, with an error code where one went wrong."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from fastapi_guard.exceptions import AuthError, ConfigurationError
from fastapi_guard.routers.bodies import is_form
from fastapi_guard.routers.responses import NeverStoredRoute, described_statuses, with_query
from fastapi_guard.schemes.origin import path_within
from fastapi_guard.stores.arguments import instance_of

# By the reason of a refusal; any other is named by its status.
_REASONS: Final = {
    "unknown_pending": "expired",
    "second_factor_failed": "wrong_factor",
    "no_second_factor": "no_second_factor",
}
_STATUSES: Final = {401: "wrong", 403: "forbidden", 429: "too_many", 503: "unavailable"}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoginPages:
    """The pages to which a browser is sent after a form post: paths of the application.

    Attributes:
        done: After a login, unless the form has a field ``next``.
        login: After a login that failed, with ``?error=``: ``wrong``, ``expired``, ``too_many``, ``unavailable``,
            ``forbidden``, ``no_second_factor``, ``malformed``.
        second: For the second step, also after a wrong one, with ``?error=wrong_factor``.
        logged_out: After a logout.
        step_up: After a step-up that failed, with ``?error=`` as after a login, and ``wrong_factor``.
    """

    done: str = "/"
    login: str = "/login"
    second: str = "/login/second"
    logged_out: str = "/login"
    step_up: str = "/step-up"

    def __post_init__(self) -> None:
        """Check the paths.

        Raises:
            ConfigurationError: One is not a path of the application.
        """
        for page in (self.done, self.login, self.second, self.logged_out, self.step_up):
            if not isinstance(page, str) or not page or path_within(page, "") != page:
                msg = f"a page is a path of the application, such as '/login', not {page!r}"
                raise ConfigurationError(msg)


def route_class_for(pages: LoginPages | None) -> type[APIRoute]:
    """Return the class of routes that redirect after a form post to ``pages``, and respond with JSON otherwise.

    Raises:
        ConfigurationError: ``pages`` is something else.
    """
    instance_of("pages", pages, (LoginPages, type(None)), "LoginPages or None")
    if pages is None:
        return NeverStoredRoute
    own: LoginPages = pages

    class PageRoute(NeverStoredRoute):
        """A route of a login that pages post forms to."""

        def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:
            """Document the redirect beside the other responses."""
            if "POST" in settings["methods"]:
                settings["responses"] = {**(settings["responses"] or {}), **described_statuses(303)}
            super().__init__(path, endpoint, **settings)

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """Return the handler of a request."""
            handle = super().get_route_handler()
            if "POST" not in (self.methods or ()):
                return handle
            is_logout = self.path.endswith("/logout")
            is_step_up = "/login/step-up" in self.path

            async def handle_form(request: Request) -> Response:
                if not is_form(request):
                    return await handle(request)
                try:
                    response = await handle(request)
                except HTTPException as error:
                    return _after_refusal(request, own, _code_of(error), is_step_up=is_step_up)
                if response.status_code >= 400:  # the answer to a body that cannot be read
                    return _after_refusal(request, own, "malformed", is_step_up=is_step_up)
                return _after_success(request, own, response, is_logout=is_logout)

            return handle_form

    return PageRoute


def _after_refusal(request: Request, pages: LoginPages, code: str, *, is_step_up: bool) -> Response:
    second = pages.second if code == "wrong_factor" else pages.login
    page = pages.step_up if is_step_up else second
    return _redirect(page, {"error": code, **_next_of(request)})


def _after_success(request: Request, pages: LoginPages, response: Response, *, is_logout: bool) -> Response:
    if response.status_code == 202:
        redirect = _redirect(pages.second, _next_of(request))
    else:
        redirect = _redirect(pages.logged_out if is_logout else next_of(request, pages.done), {})
    for cookie in response.headers.getlist("set-cookie"):
        redirect.headers.append("set-cookie", cookie)
    return redirect


def next_of(request: Request, default: str) -> str:
    """Return where the form asked to go after the login: a path of the application, by default ``default``."""
    return path_within(getattr(request.state, "form_next", None), default)


def _next_of(request: Request) -> dict[str, str]:
    target = next_of(request, "")
    return {"next": target} if target else {}


def _code_of(error: HTTPException) -> str:
    reason = error.reason if isinstance(error, AuthError) else ""
    return _REASONS.get(reason) or _STATUSES.get(error.status_code, "malformed")


def _redirect(page: str, query: dict[str, str]) -> RedirectResponse:
    return RedirectResponse(with_query(page, query), 303, headers={"Cache-Control": "no-store"})
