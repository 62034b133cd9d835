"""The application as a client of a provider: exchanges codes, and reads documents with a token."""

from base64 import b64encode
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote_plus, urlencode

from pydantic import SecretStr

from fastapi_guard.claims import is_present
from fastapi_guard.events import logger
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.jwt.compact import MalformedToken, decode_object
from fastapi_guard.jwt.http import DEFAULT_MAX_BYTES, DEFAULT_TIMEOUT_SECONDS, Poster, check_client, fetch_text
from fastapi_guard.jwt.responses import FetchError, content_of
from fastapi_guard.login.providers.provider import AuthorizationRequest, CodeExchange, refused
from fastapi_guard.stores.arguments import mapping_of, sync_function_of
from fastapi_guard.stores.hidden import revealed

if TYPE_CHECKING:
    import httpx2

# A function makes a new one for each exchange, as Apple wants it: a signed token that expires.
ClientSecret = str | SecretStr | Callable[[], str] | None
ClientAuthentication = Literal["client_secret_basic", "client_secret_post"]

_AUTHENTICATIONS: Final = ("client_secret_basic", "client_secret_post")
_MAX_ERROR_CHARACTERS: Final = 64
_OWN_PARAMETERS: Final = (
    *("response_type", "client_id", "redirect_uri", "state", "nonce", "code_challenge", "code_challenge_method"),
)


class ProviderClient:
    """A client that is registered with a provider (RFC 6749 2)."""

    def __init__(
        self,
        client_id: str,
        client_secret: ClientSecret,
        *,
        authentication: ClientAuthentication = "client_secret_basic",
        client: "httpx2.AsyncClient | None" = None,
        private_http: bool = False,
    ) -> None:
        """Be the client ``client_id``.

        Args:
            client_id: The identifier that the provider has given out.
            client_secret: Its secret, or a function that makes one; ``None`` for a public client.
            authentication: How the secret is sent (RFC 6749 2.3.1).
            client: The HTTP client to use; it stays open.
            private_http: See OIDCAuth.

        Raises:
            ConfigurationError: An argument is empty or not known, or a function for the secret is an ``async def``.
            MissingExtraError: The extra ``http`` is not installed.
        """
        if not isinstance(client_id, str) or not client_id:
            msg = "client_id is the identifier that the provider has given out"
            raise ConfigurationError(msg)
        secret = revealed(client_secret)
        if secret == "" or not (secret is None or isinstance(secret, str) or callable(secret)):
            msg = "client_secret is a text, a function that returns one, or None for a public client"
            raise ConfigurationError(msg)
        if callable(secret):
            sync_function_of("client_secret", secret, "that returns a text")
        if authentication not in _AUTHENTICATIONS:
            msg = f"authentication is one of {', '.join(_AUTHENTICATIONS)}, not {shown(authentication)}"
            raise ConfigurationError(msg)
        self.client_id: str = client_id
        self.http: httpx2.AsyncClient | None = check_client(client)
        self._secret: str | Callable[[], str] | None = secret
        self._in_header = authentication == "client_secret_basic"
        self._private_http = private_http
        self._posters: dict[str, Poster] = {}

    def __repr__(self) -> str:
        """Show no secret."""
        return f"ProviderClient({self.client_id!r})"

    def authorization_url(self, endpoint: str, request: AuthorizationRequest, parameters: Mapping[str, str]) -> str:
        """Return the URL of an authorization request, with PKCE S256."""
        query = {
            **parameters,
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": request.redirect_uri,
            "state": request.state,
            "nonce": request.nonce,
            "code_challenge": request.challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def exchange(self, endpoint: str, exchange: CodeExchange) -> dict[str, Any]:
        """Return the token response for a code.

        Raises:
            Unauthorized: The provider refused the code.
            FetchError: No such response came, or the function for the secret returned none.
        """
        form = {
            "grant_type": "authorization_code",
            "code": exchange.code,
            "redirect_uri": exchange.redirect_uri,
            "code_verifier": exchange.verifier,
        }
        headers = {"Accept": "application/json"}
        secret = self._current_secret()
        if secret is not None and self._in_header:
            basic = f"{quote_plus(self.client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = f"Basic {b64encode(basic.encode()).decode('ascii')}"
        else:
            form["client_id"] = self.client_id
            if secret is not None:
                form["client_secret"] = secret
        answer = await self._poster(endpoint).post(form, headers)
        try:
            members = decode_object(content_of(answer))
        except MalformedToken:
            msg = "the token response is not a JSON object"
            raise FetchError(msg) from None
        # GitHub answers 200 to a code that it refuses.
        if answer.status != 200 or is_present(members.get("error")):
            logger.warning("a provider refused a code: %s", error_code(members.get("error")))
            raise refused("code_refused")
        return members

    async def read(self, url: str, access_token: str) -> Any:
        """Return the JSON at ``url``, requested with an access token.

        Raises:
            FetchError: No JSON came.
        """
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
        text = await fetch_text(url, headers=headers, client=self.http, private_http=self._private_http)
        try:
            # As a member: a list is JSON too, and is checked by the same rules.
            return decode_object(f'{{"value":{text}}}'.encode())["value"]
        except MalformedToken:
            msg = "a provider did not answer with JSON"
            raise FetchError(msg) from None

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        for poster in self._posters.values():
            await poster.aclose()

    def _current_secret(self) -> str | None:
        if not callable(self._secret):
            return self._secret
        secret = revealed(self._secret())
        if not isinstance(secret, str) or not secret:
            msg = f"client_secret returned {shown(secret)}, not the text of a secret"
            raise FetchError(msg)
        return secret

    def _poster(self, endpoint: str) -> Poster:
        if endpoint not in self._posters:
            self._posters = {
                endpoint: Poster(
                    endpoint,
                    client=self.http,
                    timeout_seconds=DEFAULT_TIMEOUT_SECONDS,
                    max_bytes=DEFAULT_MAX_BYTES,
                    private_http=self._private_http,
                )
            }
        return self._posters[endpoint]


def parameters_of(parameters: Mapping[str, str], example: str, *, fixed: Collection[str] = ()) -> Mapping[str, str]:
    """Return further parameters of the authorization request.

    Raises:
        ConfigurationError: They are not texts by their names, or set one that each request has, or one of ``fixed``.
    """
    further = mapping_of("parameters", parameters, example)
    if own := sorted({*_OWN_PARAMETERS, *fixed} & set(further)):
        msg = f"parameters cannot set {', '.join(own)}: every request has its own"
        raise ConfigurationError(msg)
    for name, value in further.items():
        if not isinstance(value, str | int) or isinstance(value, bool):
            msg = f"parameters: {name} is text, not {shown(value)}"
            raise ConfigurationError(msg)
    return further


def error_code(value: object) -> str:
    """Return the error code of a provider for the log, bounded and printable: its text is not ours."""
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return value[:_MAX_ERROR_CHARACTERS]
    return "unknown"


def text_in(members: Mapping[str, Any], name: str) -> str:
    """Return a text of a token response.

    Raises:
        Unauthorized: It is missing, or not a text.
    """
    value = members.get(name)
    if not isinstance(value, str) or not value:
        reason = f"no_{name}"
        raise refused(reason)
    return value
