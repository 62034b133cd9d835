"""Answer the form posts of pages with a redirect: 303, and where it failed ``?error=<code>`` (RFC 9110 15.4.4).

The content type decides: JSON has statuses and problem details, and a form of a route without a page has too.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.routers.bodies import is_form, keep_fields, kept_fields
from fastapi_guard.routers.responses import NeverStoredRoute, described_statuses, with_query
from fastapi_guard.schemes.origin import path_within
from fastapi_guard.stores.arguments import instance_of, mapping_of, texts_of

EndpointT = TypeVar("EndpointT", bound=Callable[..., Any])

_ATTRIBUTE: Final = "fastapi_guard_redirects"
_STATUSES: Final[Mapping[int, str]] = {
    401: "login_required",
    403: "forbidden",
    409: "conflict",
    413: "too_long",
    415: "unsupported",
    429: "throttled",
    503: "unavailable",
}


class Redirects(Protocol):
    """The paths to which a browser goes after the post of a form."""

    @property
    def kept(self) -> Sequence[str]:
        """The fields of the form that ``kept_fields`` returns."""
        ...  # pragma: no cover

    def after(self, request: Request, response: Response) -> str:
        """Return the path after a success, with its query."""
        ...  # pragma: no cover

    def refused(self, request: Request, error: HTTPException | RequestValidationError) -> str:
        """Return the path after a refusal, with its query."""
        ...  # pragma: no cover


class PageRoute(NeverStoredRoute):
    """The ``route_class`` of routers whose endpoints may have ``redirects`` for forms."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:
        """Document the redirect beside the other responses."""
        self._redirects: Redirects | None = None
        # A form posts; a browser has no other way to change something without a script.
        if "POST" in settings["methods"]:
            self._redirects = getattr(endpoint, _ATTRIBUTE, None)
        if self._redirects is not None:
            settings["responses"] = {**described_statuses(303), **(settings["responses"] or {})}
        super().__init__(path, endpoint, **settings)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request."""
        plain = super().get_route_handler()
        redirects = self._redirects
        if redirects is None:
            return plain
        # Refusals of guards, and bodies that cannot be read, are among what it raises.
        handle = APIRoute.get_route_handler(self)

        async def handle_form(request: Request) -> Response:
            if not is_form(request):
                return await plain(request)
            keep_fields(request, redirects.kept)
            try:
                response = await handle(request)
            except (HTTPException, RequestValidationError) as error:
                return _redirect(redirects.refused(request, error))
            redirect = _redirect(redirects.after(request, response))
            redirect.raw_headers += [field for field in response.raw_headers if field[0] == b"set-cookie"]
            return redirect

        return handle_form


def redirecting(redirects: Redirects | None) -> Callable[[EndpointT], EndpointT]:
    """Return a decorator of an endpoint that answers forms by ``redirects``, below that of the route.

    Args:
        redirects: ``None``: a form has the response of JSON.
    """

    def decorate(endpoint: EndpointT) -> EndpointT:
        if redirects is not None:
            setattr(endpoint, _ATTRIBUTE, redirects)
        return endpoint

    return decorate


def _redirect(target: str) -> Response:
    return RedirectResponse(target, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


@dataclass(frozen=True, kw_only=True, slots=True)
class FormPage:
    """The pages that follow the post of a form.

    Attributes:
        done: The path after a success, such as ``"/welcome"``.
        failed: The path after a refusal, mostly that of the form; ``?error=<code>`` is appended.
        kept: Fields of the form that are appended to ``failed`` too. Only what was in the URL of the page before: the
            ``token`` of a link, with ``AccountPages(in_query=True)``.
    """

    done: str
    failed: str
    kept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the paths.

        Raises:
            ConfigurationError: One is not a path of this origin, or ``kept`` is not a list of names.
        """
        for path in (self.done, self.failed):
            if not isinstance(path, str) or path_within(path, "") != path:
                msg = f'a page is a path of this application, such as "/welcome", not {path!r}'
                raise ConfigurationError(msg)
        texts_of("kept", self.kept, 'of names of fields, such as ["token"]')


@dataclass(frozen=True, slots=True)
class _Coded:
    """A page, and the codes of refusals by their texts, where the status alone would not be enough."""

    page: FormPage
    codes: Mapping[str, str]

    @property
    def kept(self) -> Sequence[str]:
        return self.page.kept

    def after(self, request: Request, response: Response) -> str:  # noqa: ARG002 - one page for all
        return self.page.done

    def refused(self, request: Request, error: HTTPException | RequestValidationError) -> str:
        return with_query(self.page.failed, {"error": self._code(error), **kept_fields(request)})

    def _code(self, error: HTTPException | RequestValidationError) -> str:
        if isinstance(error, HTTPException):
            return self.codes.get(str(error.detail)) or _STATUSES.get(error.status_code, "failed")
        field = str(error.errors()[0]["loc"][-1])
        return "unreadable" if field == "body" else f"{field}_invalid"


def with_page(page: FormPage | None, codes: Mapping[str, str]) -> Callable[[EndpointT], EndpointT]:
    """Return a decorator of an endpoint that answers forms by ``page``, below that of the route.

    Args:
        page: ``None``: a form has the response of JSON.
        codes: The code of a refusal by its text, where its status alone would not be enough.
    """
    return redirecting(None if page is None else _Coded(page, codes))


def checked_pages(pages: Mapping[str, FormPage] | None, routes: tuple[str, ...]) -> Mapping[str, FormPage]:
    """Return the pages of a router, by the names of its routes.

    Raises:
        ConfigurationError: There is no route of a name, or one has no FormPage.
    """
    found = mapping_of("pages", {} if pages is None else pages, f"{{{routes[0]!r}: FormPage(...)}}")
    unknown = sorted({*found} - {*routes})
    if unknown:
        msg = f"pages: there is no route {unknown[0]!r} for a page; the routes are {', '.join(routes)}"
        raise ConfigurationError(msg)
    for name, page in found.items():
        instance_of(f"pages[{name!r}]", page, FormPage, "a FormPage")
    return found
