"""Answer the form posts of pages with a redirect: 303, and where it failed ``?error=<code>`` (RFC 9110 15.4.4).

The content type decides: JSON has statuses and problem details, and a form of a route without a page has too.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.routers.bodies import is_form, keep_fields, kept_fields
from fastapi_guard.routers.responses import NeverStoredRoute, with_query
from fastapi_guard.schemes.origin import path_within
from fastapi_guard.stores.arguments import instance_of, mapping_of, texts_of

EndpointT = TypeVar("EndpointT", bound=Callable[..., Any])

_ATTRIBUTE: Final = "fastapi_guard_form_page"
_STATUSES: Final[Mapping[int, str]] = {
    401: "login_required",
    403: "forbidden",
    409: "conflict",
    413: "too_long",
    415: "unsupported",
    429: "throttled",
    503: "unavailable",
}


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

    def after(self, response: Response) -> Response:
        """Return the redirect after a success, with the cookies of ``response``."""
        redirect = _redirect(self.done)
        redirect.raw_headers += [field for field in response.raw_headers if field[0] == b"set-cookie"]
        return redirect

    def refusal(self, request: Request, code: str) -> Response:
        """Return the redirect after a refusal of ``request``."""
        return _redirect(with_query(self.failed, {"error": code, **kept_fields(request)}))


class PageRoute(NeverStoredRoute):
    """The ``route_class`` of routers whose endpoints may have a FormPage."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request."""
        plain = super().get_route_handler()
        found: tuple[FormPage | None, Mapping[str, str]] = getattr(self.endpoint, _ATTRIBUTE, (None, {}))
        page, codes = found
        if page is None:
            return plain
        # Refusals of guards are among what it raises.
        handle = APIRoute.get_route_handler(self)

        async def handle_form(request: Request) -> Response:
            if not is_form(request):
                return await plain(request)
            keep_fields(request, page.kept)
            try:
                return page.after(await handle(request))
            except HTTPException as error:
                return page.refusal(request, codes.get(error.detail) or _STATUSES.get(error.status_code, "failed"))
            except RequestValidationError as error:
                field = str(error.errors()[0]["loc"][-1])
                return page.refusal(request, "unreadable" if field == "body" else f"{field}_invalid")

        return handle_form


def with_page(page: FormPage | None, codes: Mapping[str, str]) -> Callable[[EndpointT], EndpointT]:
    """Return a decorator of an endpoint that answers forms by ``page``. It comes below that of the route.

    Args:
        page: ``None``: a form has the response of JSON.
        codes: The code of a refusal by its text, where its status alone would not be enough.
    """

    def decorate(endpoint: EndpointT) -> EndpointT:
        setattr(endpoint, _ATTRIBUTE, (page, codes))
        return endpoint

    return decorate


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


def _redirect(path: str) -> Response:
    return RedirectResponse(path, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
