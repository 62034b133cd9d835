"""OpenIDProvider: sign in with an OpenID Connect provider (OpenID Connect Core 3.1)."""

from collections.abc import Callable, Mapping, Sequence
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from pydantic import AnyUrl

from fastapi_guard.exceptions import ConfigurationError, Unauthorized, shown
from fastapi_guard.issuers.oidc import OIDCAuth
from fastapi_guard.login.providers.client import (
    ClientAuthentication,
    ClientSecret,
    ProviderClient,
    parameters_of,
    text_in,
)
from fastapi_guard.login.providers.metadata import ProviderMetadata
from fastapi_guard.login.providers.provider import (
    AuthorizationRequest,
    CodeExchange,
    Identity,
    ResponseMode,
    Vouches,
    checked_vouches,
    identity_of,
    refused,
)
from fastapi_guard.stores.arguments import check_flags, check_texts, texts_of
from fastapi_guard.stores.hidden import plain

if TYPE_CHECKING:
    import httpx2

SCOPES: Final = ("openid", "email", "profile")
# Parameters of the authorization request that follow from arguments of their own.
_BY_ARGUMENTS: Final = ("response_mode", "scope")
_ADDRESS: Final = frozenset({"email", "email_verified"})


class ProviderOptions(TypedDict, total=False):
    """Options of every OpenID Connect provider.

    Attributes:
        scopes: What is requested, by default ``openid email profile``.
        vouches: Whether a verified address of this provider may be matched with an account that has the same one:
            ``True``, ``False``, or a function of the Identity. Only where no other user of the provider can have it.
        parameters: Further parameters of the authorization request, such as ``{"prompt": "select_account"}``.
        userinfo: Whether claims are read from the userinfo endpoint too.
        authentication: How the client secret is sent.
        require: Claims that an ID token must have, such as ``{"hd": "example.com"}``; see OIDCAuth.
        client: The HTTP client to use; it stays open.
        private_http: Whether http is accepted in a private network; see OIDCAuth.
        clock: Seconds since the epoch.
    """

    scopes: Sequence[str]
    vouches: bool | Vouches
    parameters: Mapping[str, str]
    userinfo: bool
    authentication: ClientAuthentication
    require: Mapping[str, Any]
    client: "httpx2.AsyncClient | None"
    private_http: bool
    clock: Callable[[], float]


class OpenIDProvider:
    """An OpenID Connect provider: authorization code with PKCE, state and nonce, ID token by Core 3.1.3.7.

    Attributes:
        name: The name in routes.
        issuer: The ``iss`` of its ID tokens.
        response_mode: How the browser comes back.
        metadata: The endpoints.
        id_tokens: Verifies the ID tokens.
    """

    def __init__(
        self,
        name: str,
        issuer: str | AnyUrl,
        client_id: str,
        client_secret: ClientSecret = None,
        *,
        response_mode: ResponseMode = "query",
        **options: Unpack[ProviderOptions],
    ) -> None:
        """Sign in at ``issuer`` as the client ``client_id``; nothing is fetched before the first sign-in.

        Args:
            name: The name in routes, such as ``"google"``.
            issuer: Its https URL, exactly as in ``iss``. Discovery finds the rest.
            client_id: The identifier that the provider has given out.
            client_secret: Its secret; ``None`` for a public client.
            response_mode: How the browser comes back: ``"query"``, or ``"form_post"`` where the provider insists.
            options: See ProviderOptions.

        Raises:
            ConfigurationError: The issuer is not an https URL, an argument is empty, ``scopes`` is without ``openid``,
                ``parameters`` sets one that each request has, or an option is unknown or has the wrong type.
            MissingExtraError: The extra ``http`` is not installed.
        """
        if unknown := sorted(set(options) - ProviderOptions.__annotations__.keys()):
            msg = f"OpenIDProvider has no option {', '.join(unknown)}"
            raise ConfigurationError(msg)
        check_texts(name=name)
        self._userinfo = options.get("userinfo", False)
        check_flags(userinfo=self._userinfo)
        parameters = parameters_of(options.get("parameters", {}), "{'prompt': 'login'}", fixed=_BY_ARGUMENTS)
        scopes = texts_of("scopes", options.get("scopes", SCOPES), f"with openid in it, such as {list(SCOPES)}")
        if "openid" not in scopes:
            msg = f'scopes is a list with "openid" in it, such as {list(SCOPES)}'
            raise ConfigurationError(msg)
        self._parameters = {"scope": " ".join(scopes), **parameters}
        if response_mode not in ("query", "form_post"):
            msg = f'response_mode is "query" or "form_post", not {shown(response_mode)}'
            raise ConfigurationError(msg)
        if response_mode == "form_post":
            self._parameters["response_mode"] = response_mode
        client, private_http = options.get("client"), options.get("private_http", False)
        # Without one, what is fetched is kept by a clock that is never set back.
        clock: dict[str, Any] = {"clock": options["clock"]} if "clock" in options else {}
        self.name: str = name
        self.issuer: str = plain(issuer)
        self.response_mode: ResponseMode = response_mode
        self.client: ProviderClient = ProviderClient(
            client_id,
            client_secret,
            authentication=options.get("authentication", "client_secret_basic"),
            client=client,
            private_http=private_http,
        )
        self.metadata: ProviderMetadata = ProviderMetadata(
            self.issuer, client=client, private_http=private_http, **clock
        )
        self.id_tokens: OIDCAuth = OIDCAuth(
            self.issuer,
            client_id,
            accept="id",
            require=options.get("require", {}),
            client=client,
            private_http=private_http,
            **clock,
        )
        self._vouches = checked_vouches(options.get("vouches", False))

    async def authorization_url(self, request: AuthorizationRequest) -> str:
        """Return the URL to send the browser to.

        Raises:
            FetchError: The metadata of the provider did not come.
        """
        endpoints = await self.metadata.endpoints()
        return self.client.authorization_url(endpoints.authorization_endpoint, request, self._parameters)

    async def identify(self, exchange: CodeExchange, *, issuer: str | None) -> Identity:
        """Return the user whom the ID token for a code is about.

        Raises:
            Unauthorized: The issuer, the code, the ID token or its nonce is not valid.
            FetchError: The provider is unreachable, or its answer is not usable.
        """
        endpoints = await self.metadata.endpoints()
        # RFC 9207 2.4: an answer of another provider is not exchanged here.
        if issuer != self.issuer and (issuer is not None or endpoints.announces_issuer):
            raise refused("issuer_parameter")
        answer = await self.client.exchange(endpoints.token_endpoint, exchange)
        id_token = text_in(answer, "id_token")
        claims = await self._claims(id_token, exchange.nonce)
        if self._userinfo and endpoints.userinfo_endpoint is not None:
            found = await self.client.read(endpoints.userinfo_endpoint, text_in(answer, "access_token"))
            # OpenID Connect Core 5.3.2: it is about the same user, or it is not used.
            if not isinstance(found, dict) or found.get("sub") != claims.get("sub"):
                raise refused("userinfo_subject")
            claims = {**_beside(claims, found), **claims}
        return identity_of(self.issuer, claims, id_token)

    def vouches(self, identity: Identity) -> bool:
        """Return whether the address of ``identity`` is verified, and the option ``vouches`` trusts it."""
        return self._vouches(identity)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self.client.aclose()
        await self.id_tokens.aclose()

    async def _claims(self, id_token: str, nonce: str) -> dict[str, Any]:
        try:
            claims = await self.id_tokens.verify(id_token)
        except Unauthorized as error:
            reason = f"id_token_{error.reason}"
            raise refused(reason) from None
        presented = claims.get("nonce")
        if not isinstance(presented, str) or not compare_digest(presented.encode(), nonce.encode()):
            raise refused("id_token_nonce")
        # OpenID Connect Core 3.1.3.7, 5. An ID token for several audiences that lacks it was refused before.
        if claims.get("azp", self.client.client_id) != self.client.client_id:
            raise refused("id_token_azp")
        return claims


def _beside(claims: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the userinfo response adds to the claims of an ID token.

    The mark of one document is not about an address in the other.
    """
    if _ADDRESS.isdisjoint(claims):
        return found
    return {name: value for name, value in found.items() if name not in _ADDRESS}
