"""Sign in with GitHub, which has OAuth 2.0 and an API, and no ID tokens."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.responses import FetchError
from fastapi_guard.jwt.urls import check_url
from fastapi_guard.login.providers.client import ClientSecret, ProviderClient, parameters_of, text_in
from fastapi_guard.login.providers.provider import (
    AuthorizationRequest,
    CodeExchange,
    Identity,
    ResponseMode,
    Vouches,
    address_in,
    checked_vouches,
    refused,
)
from fastapi_guard.stores.arguments import check_texts

if TYPE_CHECKING:
    import httpx2

_HOST: Final = "https://github.com"
_SCOPE: Final = "read:user user:email"


class GitHub:
    """GitHub, or a GitHub Enterprise Server.

    The subject is the numeric id of the account, which does not change with the login name. The address is the one that
    the user has marked as primary, where it is verified.

    Source: https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps

    Attributes:
        name: The name in routes.
        issuer: The host, in place of an ``iss``.
        response_mode: How the browser comes back.
    """

    response_mode: ResponseMode = "query"

    def __init__(
        self,
        client_id: str,
        client_secret: ClientSecret,
        *,
        name: str = "github",
        host: str = _HOST,
        vouches: bool | Vouches = False,
        parameters: Mapping[str, str] | None = None,
        client: "httpx2.AsyncClient | None" = None,
    ) -> None:
        """Sign in as the OAuth app ``client_id``.

        Args:
            client_id: The identifier of the OAuth app.
            client_secret: Its secret.
            name: The name in routes.
            host: The URL of an Enterprise Server.
            vouches: Whether a verified address may be matched with an account that has the same one.
            parameters: Further parameters of the authorization request, such as ``{"allow_signup": "false"}``.
            client: The HTTP client to use; it stays open.

        Raises:
            ConfigurationError: The host is not an https URL, an argument is empty, or ``parameters`` sets one that each
                request has.
            MissingExtraError: The extra ``http`` is not installed.
        """
        if client_secret is None:
            msg = "GitHub needs the client_secret of the OAuth app"
            raise ConfigurationError(msg)
        check_texts(name=name)
        further = parameters_of({} if parameters is None else parameters, "{'allow_signup': 'false'}")
        self.name: str = name
        self.issuer: str = check_url(host).rstrip("/")
        self.client: ProviderClient = ProviderClient(
            client_id, client_secret, authentication="client_secret_post", client=client
        )
        self._api = "https://api.github.com" if self.issuer == _HOST else f"{self.issuer}/api/v3"
        self._parameters = {"scope": _SCOPE, **further}
        self._vouches = checked_vouches(vouches)

    async def authorization_url(self, request: AuthorizationRequest) -> str:
        """Return the URL to send the browser to."""
        return self.client.authorization_url(f"{self.issuer}/login/oauth/authorize", request, self._parameters)

    async def identify(self, exchange: CodeExchange, *, issuer: str | None) -> Identity:
        """Return the account that a code is about.

        Raises:
            Unauthorized: The code is not valid, or the answer is another provider's.
            FetchError: GitHub is unreachable, or its answer is not usable.
        """
        if issuer not in (None, self.issuer, f"{self.issuer}/login/oauth"):
            raise refused("issuer_parameter")
        answer = await self.client.exchange(f"{self.issuer}/login/oauth/access_token", exchange)
        access_token = text_in(answer, "access_token")
        account = await self.client.read(f"{self._api}/user", access_token)
        number = account.get("id") if isinstance(account, dict) else None
        if not isinstance(account, dict) or type(number) is not int:
            msg = "the answer of GitHub is not an account"
            raise FetchError(msg)
        name = account.get("name")
        email = _verified_address(await self.client.read(f"{self._api}/user/emails", access_token))
        return Identity(
            issuer=self.issuer,
            subject=str(number),
            email=email,
            email_verified=email is not None,
            name=name if isinstance(name, str) else None,
            claims=account,
        )

    def vouches(self, identity: Identity) -> bool:
        """Return whether the address of ``identity`` is verified, and the option ``vouches`` trusts it."""
        return self._vouches(identity)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self.client.aclose()


def _verified_address(addresses: Any) -> str | None:
    if not isinstance(addresses, list):
        return None
    for address in addresses:
        if isinstance(address, dict) and address.get("primary") is True and address.get("verified") is True:
            return address_in(address.get("email"))
    return None
