"""The cost that `requires("items:read")` on a JWT adds to a request, beside the same guard built from other libraries.

Run it as `python -m tests.benchmarks.core`.
"""

import base64
import logging
import secrets
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from joserfc import jwk, jwt
from joserfc.errors import SecurityWarning

import fastapi_guard
from fastapi_guard.app import guarded as guarded_application

from . import imports, rivals
from .harness import Timings, Variant, application, measure
from .report import Limit, arguments, report, versions

ISSUER = "https://id.example"
AUDIENCE = "https://api.example"
TAKES_PART = ("fastapi", "starlette", "joserfc", "cryptography", "fastapi-views", "authx", "pyjwt")

# Cost of ours over that of fastapi-views, for each algorithm.
ALGORITHMS = {"HS256": 0.45, "RS256": 0.55, "ES256": 0.65, "Ed25519": 0.70}
CACHED = 1.6
SECOND_GUARD = 1.1
TAMPERED = 1.0
MOUNTED = 1.0
NO_CREDENTIAL = 1.2
IMPORT = 1.10

BARE = "bare route"
MOUNT = "bare mount"
TRIVIAL = "one trivial async dependency"
RAISING = "one dependency that raises HTTPException(401)"
REFUSED = "no credential, configure_app"


def new_key(algorithm: str) -> jwk.Key:
    """Return a private key; a secret is ASCII, since not every library accepts bytes."""
    match algorithm[:2]:
        case "HS":
            return jwk.OctKey.import_key(secrets.token_urlsafe(48))
        case "RS":
            return jwk.RSAKey.generate_key(2048)
        case "ES":
            return jwk.ECKey.generate_key("P-256")
        case _:
            return jwk.OKPKey.generate_key("Ed25519")


def bearer(algorithm: str, key: jwk.Key, **scopes: object) -> str:
    """Return an Authorization value with a token of an hour; `scopes` names the claim that grants, and its value."""
    now = int(time.time())
    header = {"alg": algorithm, "typ": "JWT", "kid": key.thumbprint()}
    claims: dict[str, Any] = {"sub": "user-1", "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 3600}
    return "Bearer " + jwt.encode(header, {**claims, "jti": secrets.token_urlsafe(16), **scopes}, key, [algorithm])


def tamper(credential: str) -> str:
    """Return the credential with the last byte of its signature changed; the base64url stays canonical."""
    head, _, signature = credential.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[-1] ^= 1
    return f"{head}.{base64.urlsafe_b64encode(raw).decode('ascii').rstrip('=')}"


def guarded(name: str, app: FastAPI, good: str, lacking: str, *, tampered: int = 401) -> Variant:
    """Return a variant that must tell a good token from none, a tampered one, and one that lacks the scope."""
    controls = {good: 200, tamper(good): tampered, lacking: 403, None: 401}
    return Variant(name=name, app=app, credential=good, controls=controls)


def ours(algorithm: str, key: jwk.Key, package: Any = fastapi_guard) -> Iterator[Variant]:
    """Yield the variants of the package for an algorithm: accepted, accepted from the cache, and refused."""
    config = package.JWTConfig(key=key, algorithms=[algorithm], issuer_url=ISSUER, audience=AUDIENCE)
    good, lacking = bearer(algorithm, key, scope="items:read"), bearer(algorithm, key, scope="items:write")
    auth, caching = package.JWTAuth(config), package.JWTAuth(replace(config, cache_size=1024))
    accepted = guarded(f"{algorithm} fastapi_guard", application(auth.requires("items:read")), good, lacking)
    yield accepted
    yield guarded(f"{algorithm} cached", application(caching.requires("items:read")), good, lacking)
    yield replace(accepted, name=f"{algorithm} tampered", credential=tamper(good), status=401)
    if algorithm == "HS256":
        twice = application(auth.requires("items:read"), everywhere=[auth.authenticated()])
        yield guarded(f"{algorithm} two guards", twice, good, lacking)
        yield replace(accepted, name="no credential", credential=None, status=401)
        configured = application(auth.requires("items:read"))
        package.configure_app(configured)
        yield replace(accepted, name=REFUSED, app=configured, credential=None, status=401)


def mounts(key: jwk.Key) -> Iterator[Variant]:
    """Yield an application that is mounted on another: as it is, and behind the guards of the routes."""
    config = fastapi_guard.JWTConfig(key=key, algorithms=["HS256"], issuer_url=ISSUER, audience=AUDIENCE)
    good, lacking = bearer("HS256", key, scope="items:read"), bearer("HS256", key, scope="items:write")
    bare = FastAPI()
    bare.mount("", application())
    yield Variant(name=MOUNT, app=bare, controls={})
    for name, cached in (("HS256 guarded mount", 0), ("HS256 cached, guarded mount", 1024)):
        auth = fastapi_guard.JWTAuth(replace(config, cache_size=cached))
        mounted = FastAPI()
        mounted.mount("", guarded_application(application(), auth.requires("items:read")))
        yield guarded(name, mounted, good, lacking)


def theirs(algorithm: str, key: jwk.Key) -> Iterator[Variant]:
    """Yield the other libraries' variants of an algorithm: authx has no Ed25519, in PyJWT it has its older name."""
    place = key, ISSUER, AUDIENCE
    good, lacking = bearer(algorithm, key, scope="items:read"), bearer(algorithm, key, scope="items:write")
    yield guarded(f"{algorithm} fastapi-views", rivals.fastapi_views(algorithm, *place), good, lacking)
    if algorithm == "Ed25519":
        good, lacking = bearer("EdDSA", key, scope="items:read"), bearer("EdDSA", key, scope="items:write")
        yield guarded(f"{algorithm} PyJWT", rivals.pyjwt("EdDSA", *place), good, lacking)
    else:
        yield guarded(f"{algorithm} PyJWT", rivals.pyjwt(algorithm, *place), good, lacking)
        good, lacking = bearer(algorithm, key, scopes=["items:read"]), bearer(algorithm, key, scopes=["items:write"])
        yield guarded(f"{algorithm} authx", rivals.authx(algorithm, *place), good, lacking, tampered=422)


def plain() -> Iterator[Variant]:
    """Yield what everything is compared with, and the least that a refusal can cost."""

    async def trivial() -> None:
        return None

    async def refuse() -> None:
        raise HTTPException(401, "Not authenticated", {"WWW-Authenticate": 'Bearer realm="api"'})

    yield Variant(name=BARE, app=application(), controls={})
    yield Variant(name=TRIVIAL, app=application(Depends(trivial)), controls={})
    yield Variant(name=RAISING, app=application(Depends(refuse)), status=401, controls={})


def limits(timings: Timings, started: Timings) -> Iterator[Limit]:
    """Yield each limit with the cost that it is held against."""

    def added(name: str) -> float:
        return timings.added(name, BARE)

    for algorithm, factor in ALGORITHMS.items():
        yield Limit(
            request=f"{algorithm} token, requires()",
            measured=added(f"{algorithm} fastapi_guard"),
            reference="fastapi-views",
            cost=added(f"{algorithm} fastapi-views"),
            factor=factor,
        )
    for algorithm in ALGORITHMS:
        yield Limit(
            request=f"{algorithm} token, cached",
            measured=added(f"{algorithm} cached"),
            reference=TRIVIAL,
            cost=added(TRIVIAL),
            factor=CACHED,
        )
    yield Limit(
        request="authenticated() on the application, beyond requires() alone",
        measured=timings.added("HS256 two guards", "HS256 fastapi_guard"),
        reference=TRIVIAL,
        cost=added(TRIVIAL),
        factor=SECOND_GUARD,
    )
    for mounted, route in (
        ("HS256 guarded mount", "HS256 fastapi_guard"),
        ("HS256 cached, guarded mount", "HS256 cached"),
    ):
        yield Limit(
            request=f"{mounted}, beyond the bare mount",
            measured=timings.added(mounted, MOUNT),
            reference="its guard on a route",
            cost=added(route),
            factor=MOUNTED,
        )
    for algorithm in ALGORITHMS:
        yield Limit(
            request=f"{algorithm} token, tampered",
            measured=added(f"{algorithm} tampered"),
            reference="its acceptance",
            cost=added(f"{algorithm} fastapi_guard"),
            factor=TAMPERED,
        )
    # FastAPI's own handler of an HTTPException alone exceeds this; an application of ours has configure_app's.
    yield Limit(
        request=f"{REFUSED}, the whole request",
        measured=timings.cost(REFUSED),
        reference=BARE,
        cost=timings.cost(BARE),
        factor=NO_CREDENTIAL,
    )
    yield Limit(
        request="import fastapi_guard",
        measured=started.cost("ours"),
        reference="fastapi and joserfc",
        cost=started.cost("parts"),
        factor=IMPORT,
        unit="ms",
    )


def main() -> None:
    """Measure, print, and write."""
    options = arguments("Added cost of a JWT guard in one request.", "core")
    logging.getLogger("fastapi_guard").setLevel(logging.WARNING)
    warnings.simplefilter("ignore", SecurityWarning)  # of joserfc, about EdDSA
    variants = list(plain())
    for algorithm in ALGORITHMS:
        key = new_key(algorithm)
        variants += [*ours(algorithm, key), *theirs(algorithm, key)]
        if algorithm == "HS256":
            variants += mounts(key)
    timings = measure(variants, rounds=options.rounds, requests=options.requests)
    parts = "import fastapi; from joserfc import jwk, jws, jwt"
    started = imports.measure({"ours": "import fastapi_guard", "parts": parts}, rounds=options.rounds)
    report(options.json, timings, BARE, list(limits(timings, started)), versions(TAKES_PART))


if __name__ == "__main__":
    main()
