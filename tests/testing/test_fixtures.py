"""The opt-in fixtures, in the tests of an application that uses them."""

import textwrap

import pytest

pytest_plugins = ["pytester"]

APPLICATION = """
from typing import Annotated, Any
from fastapi import FastAPI
from fastapi_guard import JWTAuth, JWTConfig
from joserfc.jwk import OctKey

auth = JWTAuth(JWTConfig(key=OctKey.generate_key(256)))
app = FastAPI()

@app.get("/items")
async def items(claims: Annotated[dict[str, Any], auth.requires("items:read")]) -> str:
    return claims["sub"]
"""
TESTS = """
import httpx2, pytest
from fastapi.testclient import TestClient
from application import app, auth
from fastapi_guard.events import Event

pytest_plugins = ["fastapi_guard.testing.fixtures"]
client = TestClient(app)

def test_a_stranger(guard_events):
    assert client.get("/items").status_code == 401
    assert guard_events == [Event("refused", "jwt", 401, "missing")]

def test_acting(act_as, guard_events):
    act_as(app, auth, {"sub": "ada", "scope": "items:read"})
    assert client.get("/items").json() == "ada"
    act_as(app, auth, {"sub": "bob", "scope": ""})
    assert client.get("/items").status_code == 403
    assert [(event.name, event.reason) for event in guard_events] == [
        ("authenticated", None), ("authenticated", None), ("refused", "missing_scope")
    ]

async def ask():
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as asynchronous:
        return await asynchronous.get("/items")

@pytest.mark.anyio
async def test_acting_on_a_loop(act_as):
    act_as(app, auth, {"sub": "grace", "scope": "items:read"})
    assert (await ask()).json() == "grace"

@pytest.mark.anyio
async def test_nobody_acts_any_more(guard_events):
    assert (await ask()).status_code == 401
    assert app.dependency_overrides == {}

@pytest.mark.anyio
async def test_the_issuer(fake_issuer):
    from fastapi_guard.issuers import OIDCAuth
    oidc = OIDCAuth(fake_issuer.url, fake_issuer.audience, client=fake_issuer.client)
    assert (await oidc.verify(fake_issuer.token("ada")))["sub"] == "ada"
    assert await oidc.validate_token(auth.encode({"sub": "ada"})) is False

def test_other_records_are_no_events(guard_events):
    import logging
    logging.getLogger("fastapi_guard").warning("something else")
    assert guard_events == []
    assert logging.getLogger("fastapi_guard").level == logging.DEBUG

def test_the_level_is_as_before():
    import logging
    assert logging.getLogger("fastapi_guard").level == logging.NOTSET

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def test_the_fixtures_of_an_application(pytester: pytest.Pytester) -> None:
    """A test file with the fixtures acts as a user, sees the events, and has an issuer; all ends with the test."""
    pytester.makepyfile(application=textwrap.dedent(APPLICATION), test_application=textwrap.dedent(TESTS))
    pytester.syspathinsert()
    # Plain: a test before this one may have imported the plugin, whose assertions pytest wants to rewrite.
    options = ("-q", "-p", "no:cacheprovider", "-W", "error", "--assert=plain")
    pytester.runpytest_inprocess(*options).assert_outcomes(passed=7)


def test_without_asking_for_them(pytester: pytest.Pytester) -> None:
    """A test file that does not ask has none of the fixtures."""
    pytester.makepyfile("def test_it(act_as): ...")
    pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider").assert_outcomes(errors=1)
