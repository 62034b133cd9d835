"""Key sets and connections to an issuer in a process that forks after it used them, as gunicorn --preload does."""

import subprocess
import sys

from fastapi_guard.testing.issuer import FakeIssuer

PRELOADED = """
import asyncio, os, sys
from fastapi_guard.issuers import IntrospectionAuth, OIDCAuth
from fastapi_guard.jwt.key_file import KeyFile
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard import JWTAuth, JWTConfig

url, token, opaque, secret = sys.argv[1:]
api = "https://api.example"
oidc = OIDCAuth(url, api)
remote = JWTAuth(JWTConfig(key=RemoteKeySet(url + "/jwks"), issuer_url=url, audience=api))
introspection = IntrospectionAuth(
    url + "/introspect", client_id="resource-server", client_secret=secret, audience=api, cache_seconds=0
)

async def use(refresh):
    if refresh:
        await oidc.key_set.refresh()
    for auth, raw in ((oidc, token), (remote, token), (introspection, opaque)):
        assert (await auth.verify(raw))["sub"] == "user-1"
        assert not await auth.validate_token("made.up.token")

asyncio.run(use(False))
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        asyncio.run(use(True))
        os._exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
asyncio.run(use(True))
"""


def test_workers_of_a_process_that_was_warm() -> None:
    """Each worker verifies, fetches keys and queries the issuer in its own event loop; so does the first process."""
    issuer = FakeIssuer()
    with issuer.serve() as url:
        arguments = [url, issuer.token(), issuer.opaque_token(), issuer.client_secret]
        command = [sys.executable, "-W", "error", "-c", PRELOADED, *arguments]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)  # noqa: S603 - ours
    assert (ran.stderr, ran.stdout, ran.returncode) == ("", "[0, 0]\n", 0)
