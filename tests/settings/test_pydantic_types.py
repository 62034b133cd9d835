"""URLs and secrets of pydantic, as a settings model has them, mean what their texts mean."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from pydantic import HttpUrl, RedisDsn, SecretBytes, SecretStr

from fastapi_guard import BearerScheme, ConfigurationError
from fastapi_guard.issuers import DPoP, OIDCAuth, presets
from fastapi_guard.issuers.dpop import DPoPNonces
from fastapi_guard.jwt.urls import check_url
from fastapi_guard.login.accounts import AccountPages
from fastapi_guard.login.mailed import MailedCode
from fastapi_guard.login.messages import Outbox
from fastapi_guard.login.passkeys import Passkeys
from fastapi_guard.login.providers import OpenIDProvider
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.schemes.origin import trusted
from fastapi_guard.stores import MemoryStore

KEY = bytes(range(32))
SITE = "https://shop.example"
REDIS = "redis://:secret@127.0.0.1:1/0"

# Each makes something of a URL that is a text or a HttpUrl.
OF_A_URL: Final[dict[str, Callable[[Any], Any]]] = {
    "keycloak": lambda url: OIDCAuth.keycloak(url, "shop", "api").issuers,
    "clerk": lambda url: presets.clerk(url, SITE).issuers,
    "supabase": lambda url: presets.supabase(url).issuers,
    "supabase_hs256": lambda url: presets.supabase_hs256(url, "q7Lw2Zx9Vb4Nm1Kj8Hg5Fd3Sa6Po0IuYtR").config.issuer_url,
    "fusionauth": lambda url: presets.fusionauth(url, "api", issuer="acme.com").issuers,
    "gitlab": lambda url: presets.gitlab("api", url=url, require={"project_id": "1"}).issuers,
    "DPoP": lambda url: DPoP(MemoryStore(), origin=url)._origin,
    "OpenIDProvider": lambda url: (p := OpenIDProvider("a", url, "c", "s")).issuer + p.id_tokens.issuers[0],
    "AccountPages": lambda url: AccountPages(site=url).link("verify_address", "t"),
    "MailedCode": lambda url: MailedCode(Outbox(print), key=KEY, page=url)._page,
    "Passkeys": lambda url: Passkeys(rp_id="shop.example", origin=url)._party._origins,
    "Passkeys, several": lambda url: Passkeys(rp_id="shop.example", origin=[url])._party._origins,
    "trusted_origins": lambda url: trusted([url]),
    "password": lambda url: BearerScheme.password(url, refresh_url=url).model,
    "authorization_code": lambda url: BearerScheme.authorization_code(url, url).model,
    "openid_connect": lambda url: BearerScheme.openid_connect(url).model,
}


@pytest.mark.parametrize("make", OF_A_URL.values(), ids=OF_A_URL)
def test_a_url(make: Callable[[Any], Any]) -> None:
    """A HttpUrl has a slash behind a host, which no setting needs."""
    assert make(HttpUrl(SITE)) == make(SITE)


@pytest.mark.parametrize("storage", [SecretStr(REDIS), RedisDsn(REDIS)])
def test_the_storage_of_a_throttle(storage: Any) -> None:
    """A URL with a password in it is a secret."""
    assert type(Throttle("5/minute", storage=storage)._windows) is type(Throttle("5/minute", storage=REDIS)._windows)


def test_the_key_of_nonces() -> None:
    """It may be SecretBytes."""
    assert DPoPNonces(key=SecretBytes(KEY)).at(0) == DPoPNonces(key=KEY).at(0)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [5, b"https://shop.example", ["https://shop.example"]])
def test_what_is_not_a_url(wrong: Any) -> None:
    """An error names the argument."""
    with pytest.raises(ConfigurationError, match="site is text"):
        AccountPages(site=wrong)
    with pytest.raises(ConfigurationError, match="page is text"):
        MailedCode(Outbox(print), key=KEY, page=wrong)


@pytest.mark.parametrize("host", ["\u2460", "\uff13\uff12", "\u0661"])
def test_a_host_of_other_digits(host: str) -> None:
    """It could be the number of an address of any network."""
    with pytest.raises(ConfigurationError, match="is not an https URL"):
        check_url(f"http://{host}/keys", private_http=True)
