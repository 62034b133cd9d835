"""The cost that several Auths, a user and a policy add to the guard of one JWT.

Run it as `python -m tests.benchmarks.composition`.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi_guard import AnyAuth, APIKeyScheme, JWTAuth, JWTConfig, ScopesAuth, Unauthorized

from .core import AUDIENCE, BARE, ISSUER, TRIVIAL, bearer, guarded, new_key, plain
from .harness import Timings, Variant, application, measure
from .report import Limit, arguments, report, versions

TAKES_PART = ("fastapi", "starlette", "joserfc", "cryptography")
ONE = "JWT alone"
ANY = "AnyAuth of three, the first matches"
USER = "user()"
ALLOWS = "allows()"

# Cost beyond the guard alone, over that of the bare route.
LIMITS = {ANY: 0.20, USER: 0.35, ALLOWS: 0.35}


class Keys(ScopesAuth):
    """API keys that no client sends."""

    name = "keys"

    def recognises(self, raw: str) -> bool:
        """Accept them by their prefix."""
        return raw.startswith("sk-")

    async def verify(self, raw: str) -> dict[str, Any]:
        """Refuse."""
        raise Unauthorized(error="invalid_token", reason="unknown_key")


@dataclass(frozen=True, slots=True)
class User:
    """The user that a loader returns."""

    name: str


async def load(claims: dict[str, Any]) -> User:
    """Make a user of the claims, as a loader with a cache of its own does."""
    return User(claims["sub"])


async def is_somebody(claims: dict[str, Any]) -> bool:
    """Allow every caller with a subject."""
    return bool(claims["sub"])


def variants() -> Iterator[Variant]:
    """Yield the guard alone, and what is put upon it; each must tell a good token from a bad and a lacking one."""
    key = new_key("HS256")
    auth = JWTAuth(JWTConfig(key=key, algorithms=["HS256"], issuer_url=ISSUER, audience=AUDIENCE))
    several = AnyAuth(auth, Keys(), Keys(APIKeyScheme("sid", "cookie"), name="sessions"))
    good, lacking = bearer("HS256", key, scope="items:read"), bearer("HS256", key, scope="items:write")
    for name, guard in {
        ONE: auth.requires("items:read"),
        ANY: several.requires("items:read"),
        USER: auth.user(load, "items:read"),
        ALLOWS: auth.allows(is_somebody, "items:read"),
    }.items():
        yield guarded(name, application(guard), good, lacking)


def limits(timings: Timings) -> Iterator[Limit]:
    """Yield each limit with the cost that it is held against."""
    for name, factor in LIMITS.items():
        yield Limit(
            request=f"{name}, beyond the guard alone",
            measured=timings.added(name, ONE),
            reference=BARE,
            cost=timings.cost(BARE),
            factor=factor,
        )


def main() -> None:
    """Measure, print, and write."""
    options = arguments("Added cost of several Auths, a user and a policy.", "composition")
    logging.getLogger("fastapi_guard").setLevel(logging.WARNING)
    bare = [variant for variant in plain() if variant.name in (BARE, TRIVIAL)]
    timings = measure([*bare, *variants()], rounds=options.rounds, requests=options.requests)
    report(options.json, timings, BARE, list(limits(timings)), versions(TAKES_PART))


if __name__ == "__main__":
    main()
