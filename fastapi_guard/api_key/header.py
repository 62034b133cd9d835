"""APIKeyAuth: a key in a header of its own, which the application verifies."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction

from starlette.concurrency import run_in_threadpool

from fastapi_guard.auth import Auth, AuthOptions
from fastapi_guard.events import EventCallback
from fastapi_guard.exceptions import INVALID_API_KEY, Unauthorized
from fastapi_guard.schemes import APIKeyScheme
from fastapi_guard.stores.arguments import plain_function_of

# Returns whether a raw key is valid: sync, which runs in a worker thread, or async.
VerifyKey = Callable[[str], bool | None] | Callable[[str], Awaitable[bool | None]]


class APIKeyAuth(Auth[str]):
    """A key in a header; its principal is the raw key.

    Without ``verify_key``, and without a ``verify`` of a subclass, any key at all passes: it is a presence check. An
    endpoint then has to check the key itself, with ``secrets.compare_digest``.
    """

    name = "api-key"
    _missing_detail = INVALID_API_KEY
    _invalid_detail = INVALID_API_KEY

    def __init__(
        self,
        name: str = "X-Api-Key",
        scheme_name: str | None = None,
        description: str | None = None,
        verify_key: VerifyKey | None = None,
        *,
        realm: str = "api",
        auth_name: str = "api-key",
        on_event: EventCallback | None = None,
    ) -> None:
        """Read the key from the header ``name``.

        Args:
            name: The name of the header.
            scheme_name: The name of the scheme in OpenAPI, by default that of the header.
            description: The description of the scheme in OpenAPI.
            verify_key: Returns whether a raw key is valid. A sync one runs in a worker thread.
            realm: The protection space in the challenge.
            auth_name: The name of this Auth in events and in ``request.state.auth_method``.
            on_event: Called with each Event.

        Raises:
            ConfigurationError: That cannot be the name of a header, or ``verify_key`` cannot be called.
        """
        if verify_key is not None:
            plain_function_of("verify_key", verify_key, "that returns whether a raw key is valid", "key")
        # Before the base warns of an Auth that verifies nothing.
        self._verify_key = verify_key
        scheme = APIKeyScheme(name, realm=realm, scheme_name=scheme_name, description=description)
        options: AuthOptions = {"name": auth_name}
        if on_event is not None:
            options["on_event"] = on_event
        super().__init__(scheme, **options)

    def _checks_presence_only(self) -> bool:
        kind = type(self)
        inherited = kind.verify is APIKeyAuth.verify and kind.verify_request is Auth.verify_request
        return inherited and self._verify_key is None

    async def verify(self, raw: str) -> str:
        """Return the key itself.

        Raises:
            Unauthorized: ``verify_key`` does not return ``True``.
        """
        if self._verify_key is not None and not await _answer(self._verify_key, raw):
            raise Unauthorized(INVALID_API_KEY, error="invalid_token", reason="unknown_key")
        return raw


async def _answer(verify_key: VerifyKey, raw: str) -> bool | None:
    call = getattr(verify_key, "__call__", None)  # noqa: B004 - not whether, but what
    if iscoroutinefunction(verify_key) or iscoroutinefunction(call):
        answer = verify_key(raw)
    else:
        answer = await run_in_threadpool(verify_key, raw)
    return await answer if isawaitable(answer) else answer
