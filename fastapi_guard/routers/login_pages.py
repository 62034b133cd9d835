"""Form posts of the pages of a login, without script: a redirect after each, with an error code after a refusal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError

from fastapi_guard.exceptions import AuthError, ConfigurationError
from fastapi_guard.routers.bodies import kept_fields
from fastapi_guard.routers.form_pages import redirecting
from fastapi_guard.routers.responses import with_query
from fastapi_guard.schemes.origin import path_within

EndpointT = TypeVar("EndpointT", bound=Callable[..., Any])
FormName = Literal["login", "begin", "challenge", "step-up", "step-up challenge", "logout"]

# By the reason of a refusal; any other is named by its status.
_WRONG_FACTOR: Final = "wrong_factor"
_REASONS: Final = {
    "unknown_pending": "expired",
    "second_factor_failed": _WRONG_FACTOR,
    "no_second_factor": "no_second_factor",
}
_STATUSES: Final = {401: "wrong", 403: "forbidden", 429: "too_many", 503: "unavailable"}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoginPages:
    """The pages to which a browser is sent after a form post: paths of the application.

    Attributes:
        done: After a login, unless the form has a field ``next``.
        login: After a login that failed, with ``?error=``: ``wrong``, ``expired``, ``too_many``, ``unavailable``,
            ``forbidden``, ``no_second_factor``, ``malformed``. With ``?begun=`` and the kind of a factor after a login
            by it has begun, such as ``mail``, whose code was sent.
        second: For the second step, also after a wrong one, with ``?error=wrong_factor``; with ``?begun=`` after the
            challenge of a factor.
        logged_out: After a logout.
        step_up: After a step-up that failed, with ``?error=`` as after a login, and ``wrong_factor``; with ``?begun=``
            after the challenge of a factor.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """The paths to which a browser goes after the form of one step.

    Attributes:
        done: After a success, unless the form has a field ``next``.
        failed: After a refusal.
        second: After a first proof that is right, where a second step follows, and after a factor that is wrong.
        begun: The kind of factor that a success has begun; ``""`` for the one in the form, ``None`` for none.
    """

    done: str
    failed: str
    second: str
    begun: str | None = None

    @property
    def kept(self) -> Sequence[str]:
        return ("factor",)

    def after(self, request: Request, response: Response) -> str:
        if self.begun is not None:
            kind = self.begun or kept_fields(request).get("factor", "")
            return with_query(self.done, {"begun": kind, **_next_of(request)})
        if response.status_code == 202:
            return with_query(self.second, _next_of(request))
        return _next_of(request).get("next", self.done)

    def refused(self, request: Request, error: HTTPException | RequestValidationError) -> str:
        code = _code_of(error)
        page = self.second if code == _WRONG_FACTOR else self.failed
        return with_query(page, {"error": code, **_next_of(request)})


def form_of(step: FormName, pages: LoginPages | None, kind: str = "") -> Callable[[EndpointT], EndpointT]:
    """Return the decorator of the endpoint of a step, below that of its route.

    Args:
        step: The step.
        pages: Where a browser goes after its form; ``None``: a form has the response of JSON.
        kind: The kind of factor by which a login begins.
    """
    if pages is None:
        return redirecting(None)
    login, second, step_up = pages.login, pages.second, pages.step_up
    steps: Mapping[FormName, _Step] = {
        "login": _Step(done=pages.done, failed=login, second=second),
        "begin": _Step(done=login, failed=login, second=login, begun=kind),
        "challenge": _Step(done=second, failed=login, second=second, begun=""),
        "step-up": _Step(done=pages.done, failed=step_up, second=step_up),
        "step-up challenge": _Step(done=step_up, failed=step_up, second=step_up, begun=""),
        "logout": _Step(done=pages.logged_out, failed=login, second=login),
    }
    return redirecting(steps[step])


def _next_of(request: Request) -> dict[str, str]:
    # Where the form asked to go after the login, if that is a path of the application.
    target = path_within(getattr(request.state, "form_next", None), "")
    return {"next": target} if target else {}


def _code_of(error: HTTPException | RequestValidationError) -> str:
    reason = error.reason if isinstance(error, AuthError) else ""
    status = error.status_code if isinstance(error, HTTPException) else 422
    return _REASONS.get(reason) or _STATUSES.get(status, "malformed")
