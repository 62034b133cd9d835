import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from fastapi_guard import ConfigurationError, ServiceUnavailable, Unauthorized
from fastapi_guard.issuers import presets
from fastapi_guard.issuers.presets.alb import _unpadded
from fastapi_guard.jwt.compact import MalformedToken
from fastapi_guard.jwt.http import in_process
from fastapi_guard.jwt.responses import Answer
from support.clock import Clock
from support.guarded import assert_unavailable, guarded_app, send

ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/shop/50dc6c495c0c9188"
SAME_REGION = "arn:aws:elasticloadbalancing:eu-central-1:999999999999:loadbalancer/app/theirs/1111111111111111"
ISSUER = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Ab12Cd34E"
KEYS = "https://public-keys.auth.elb.eu-central-1.amazonaws.com"
KID = "4d1e2b8c-8b1f-4c6e-9d53-0f6a2f0c7b11"
NOW = 1_790_000_000
HEADER: dict[str, Any] = {
    "typ": "JWT",
    "kid": KID,
    "alg": "ES256",
    "iss": ISSUER,
    "client": "client-1",
    "signer": ARN,
    "exp": NOW + 120,
}
CLAIMS: dict[str, Any] = {
    "sub": "ada",
    "email": "ada@example.org",
    "email_verified": "true",
    "username": "ada",
    "exp": NOW + 120,
    "iss": ISSUER,
}
KEY, OTHER = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")


def padded(value: Mapping[str, Any] | bytes) -> str:
    """Return a segment as the load balancer writes it: base64url with padding."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).decode()


def without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members whose value is not ``None``."""
    return {name: value for name, value in members.items() if value is not None}


def token(header: Mapping[str, Any] | None = None, *, key: ECKey = KEY, strip: bool = False, **claims: Any) -> str:
    """Return a token of the load balancer, with other members of the header and other claims; ``None`` leaves out."""
    segments = [padded(without_none({**HEADER, **(header or {})})), padded(without_none({**CLAIMS, **claims}))]
    if strip:
        segments = [segment.rstrip("=") for segment in segments]
    signing_input = ".".join(segments)
    signature = padded(JWSRegistry.algorithms["ES256"].sign(signing_input.encode(), key))
    return f"{signing_input}.{signature.rstrip('=') if strip else signature}"


class World:
    """The key server of a region, and an API behind the load balancer.

    Attributes:
        answers: What the key server answers, by the ``kid``.
        asked: The names that were asked for.
    """

    def __init__(self, **options: Any) -> None:
        """Publish the key of the load balancer."""
        self.clock = Clock(NOW)
        self.answers: dict[str, Answer] = {KID: Answer(200, {}, KEY.as_pem(private=False))}
        self.missing = Answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
        self.asked: list[str] = []
        client = httpx2.AsyncClient(transport=in_process(self._answer))
        given = {"load_balancer": ARN, "client_id": "client-1", "issuer": ISSUER, **options}
        self.auth = presets.aws_alb(**{"client": client, "clock": self.clock, **given})
        self.app = guarded_app(self.auth)

    async def status(self, raw: str, **fields: str) -> int:
        """Return the status of a request that the load balancer passed on."""
        method = fields.pop("method", "GET")
        headers = {"x-amzn-oidc-data": raw, **{name.replace("_", "-"): value for name, value in fields.items()}}
        return (await send(self.app, method=method, headers=headers)).status_code

    async def _answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        del method, headers, body
        base, _, kid = url.rpartition("/")
        assert base == KEYS
        self.asked.append(kid)
        return self.answers.get(kid, self.missing)


TOTAL = World()


async def test_a_user_of_the_load_balancer() -> None:
    """The padded token passes as it came, with the claims of the user and the issuer; its key is fetched once."""
    world = World()
    for _ in range(3):
        assert await world.status(token()) == 200
    assert await world.status(token(strip=True)) == 200
    assert await world.status(token(exp=None, iss=None)) == 200
    assert world.asked == [KID]
    claims = await world.auth.verify(token(exp=None, iss=None))
    assert (claims["sub"], claims["iss"], claims["client"], claims["exp"]) == ("ada", ISSUER, "client-1", NOW + 120)


REFUSED: dict[str, dict[str, Any]] = {
    "another load balancer": {"header": {"signer": SAME_REGION}},
    "no signer": {"header": {"signer": None}},
    "signers as a list": {"header": {"signer": [ARN]}},
    "another client": {"header": {"client": "client-2"}},
    "no client": {"header": {"client": None}},
    "another issuer": {"header": {"iss": "https://attacker.example"}},
    "no issuer": {"header": {"iss": None}},
    "expired": {"header": {"exp": NOW - 60}},
    "no expiry": {"header": {"exp": None}},
    "an expiry that is text": {"header": {"exp": str(NOW + 60)}},
    "another algorithm": {"header": {"alg": "HS256"}},
    "no algorithm": {"header": {"alg": "none"}},
    "a critical member": {"header": {"crit": ["exp"]}},
    "no kid": {"header": {"kid": None}},
    "a kid that is a path": {"header": {"kid": "../../secret"}},
    "a kid that is a number": {"header": {"kid": 7}},
    "another issuer of the user": {"iss": "https://attacker.example"},
    "another expiry of the user": {"exp": NOW + 9999},
    "a key of another": {"key": OTHER},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is a number": {"sub": 7},
    "an audience that is not the client": {"aud": "client-2"},
    "not yet valid": {"nbf": NOW + 3600},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
async def test_what_is_refused(changes: dict[str, Any]) -> None:
    """Each beside a positive control; what the header names wrongly causes no request."""
    world = World()
    assert await world.status(token(**changes)) == 401
    assert await world.status(token()) == 200
    assert world.asked == [KID]


async def test_texts_that_are_not_tokens() -> None:
    """Whatever the bytes, a refusal; padding that is not as long as it should be is refused too."""
    world = World()
    good = token()
    header, payload, signature = good.split(".")
    for raw in (
        "ada",
        "a.b",
        "..",
        "a.b.c.d.e",
        f"{header}.{payload}.",
        f"{header}.{payload}.{signature}=",
        f"{header}====.{payload}.{signature}",
        f"{header.rstrip('=')}=.{payload}.{signature}" if len(header.rstrip("=")) % 4 == 2 else f"{header}=.x.y",
        f"{padded(b'[]')}.{payload}.{signature}",
        f"{padded(b'{')}.{payload}.{signature}",
        f"{padded({'iss': '[' * 2000})}.{payload}.{signature}",
        "e30" + "A" * 20_000 + ".e30.e30",
        good[:-8] + "AAAAAAA=",
    ):
        assert await world.status(raw) == 401, raw[:80]
        with pytest.raises(Unauthorized):
            await world.auth.verify(raw)
    assert not await world.auth.validate_token("é.é.é")
    assert await world.status(good) == 200
    assert world.auth.recognises(good)
    assert not world.auth.recognises("ada")


@given(st.text() | st.tuples(st.binary(), st.binary(), st.binary()).map(lambda parts: ".".join(map(padded, parts))))
def test_verification_is_total(raw: str) -> None:
    """For any text the answer is a refusal, never another exception, and no key is fetched."""
    with pytest.raises(Unauthorized):
        asyncio.run(TOTAL.auth.verify(raw))
    assert TOTAL.asked == []


@given(st.binary())
def test_the_padding_of_a_segment(raw: bytes) -> None:
    """The padding that belongs to a segment is removed; any other is refused."""
    segment = urlsafe_b64encode(raw)
    stripped = segment.rstrip(b"=")
    assert _unpadded(segment) == _unpadded(stripped) == stripped
    for wrong in (segment + b"=", stripped + b"===", stripped + b"="):
        if wrong != segment:
            with pytest.raises(MalformedToken):
                _unpadded(wrong)


async def test_the_header_is_a_cookie_in_disguise() -> None:
    """A page of another site changes nothing, though the load balancer adds the user; no header is a 401."""
    world = World(trusted_origins=["https://app.example"])
    assert await world.status(token(), method="POST", Sec_Fetch_Site="same-origin") == 200
    assert await world.status(token(), method="POST", Origin="https://app.example") == 200
    assert await world.status(token(), method="POST") == 200
    assert await world.status(token(), method="POST", Sec_Fetch_Site="cross-site") == 403
    assert await world.status(token(), method="POST", Origin="https://evil.example") == 403
    assert (await send(world.app, headers={"x-amzn-oidc-identity": "ada"})).status_code == 401
    assert (await send(world.app, token().replace("=", ""))).status_code == 401


async def test_keys_by_name() -> None:
    """Another key is found by its name; a name without a key is worth one request a cooldown, whatever tokens name."""
    world = World()
    kids = [f"4d1e2b8c-8b1f-4c6e-9d53-{number:012x}" for number in range(20)]
    assert await world.status(token()) == 200
    world.clock.move(20)
    for kid in kids:
        assert await world.status(token({"kid": kid})) == 401
    assert world.asked == [KID, kids[0]]
    assert await world.status(token()) == 200
    world.answers[kids[1]] = Answer(200, {}, OTHER.as_pem(private=False))
    assert await world.status(token({"kid": kids[1]}, key=OTHER)) == 401
    world.clock.move(20)
    assert await world.status(token({"kid": kids[1]}, key=OTHER)) == 200
    assert await world.status(token({"kid": kids[1]})) == 401
    assert await world.status(token()) == 200
    assert world.asked == [KID, kids[0], kids[1]]


async def test_many_requests_at_once_fetch_one_key() -> None:
    """They wait for one fetch."""
    world = World()
    raw = token()
    assert all(await asyncio.gather(*(world.auth.validate_token(raw) for _ in range(100))))
    assert world.asked == [KID]


async def test_the_key_server_is_unreachable() -> None:
    """Before a key is there: 503, and 200 as soon as it is; a key that is there serves meanwhile."""
    world = World()
    down = {KID: Answer(500)}
    world.answers, up = down, world.answers
    assert_unavailable(await send(world.app, headers={"x-amzn-oidc-data": token()}))
    assert_unavailable(await send(world.app, headers={"x-amzn-oidc-data": token()}))
    assert world.asked == [KID]
    with pytest.raises(ServiceUnavailable):
        await world.auth.verify(token())
    world.clock.move(20)
    world.answers = up
    assert await world.status(token()) == 200
    world.answers = down
    world.clock.move(60)
    assert await world.status(token()) == 200
    for answer in (Answer(200, {}, b"not a key"), Answer(200, {}, b"\xff")):
        broken = World()
        broken.answers = {KID: answer}
        assert_unavailable(await send(broken.app, headers={"x-amzn-oidc-data": token()}))


async def test_a_key_that_was_withdrawn() -> None:
    """After its longest lifetime a key is looked up again, and refuses where it is gone."""
    world = World(max_ttl=50)
    assert await world.status(token()) == 200
    world.answers = {}
    world.clock.move(55)
    assert await world.status(token()) == 401
    assert world.asked == [KID, KID]


async def test_several_load_balancers_and_clients() -> None:
    """Of one region, each by its ARN; another partition has its keys elsewhere."""
    world = World(load_balancer=[ARN, SAME_REGION], client_id=["client-1", "client-2"], roles={"a": ["b:c"]})
    assert await world.status(token({"signer": SAME_REGION, "client": "client-2"})) == 200
    china = ARN.replace("arn:aws:", "arn:aws-cn:").replace("eu-central-1", "cn-north-1")
    elsewhere = World(load_balancer=china, keys_url=f"{KEYS}/")
    assert await elsewhere.status(token({"signer": china})) == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_balancer": "shop"}, "load_balancer is the ARN"),
        ({"load_balancer": []}, "load_balancer is the ARN"),
        ({"load_balancer": ARN.replace("/app/", "/net/")}, "load_balancer is the ARN"),
        ({"load_balancer": [ARN, ARN.replace("eu-central-1", "eu-west-1")]}, "of several regions"),
        ({"load_balancer": ARN.replace("arn:aws:", "arn:aws-us-gov:")}, "pass keys_url"),
        ({"client_id": ""}, "client_id is text"),
        ({"client_id": []}, "client_id is text, or several"),
        ({"issuer": ""}, "issuer is the issuer"),
        ({"cookie": False}, "cookie=False would let"),
        ({"keys_url": "http://keys.example"}, "not an https URL"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    """Each is an error when the Auth is constructed."""
    with pytest.raises(ConfigurationError, match=message):
        presets.aws_alb(**{"load_balancer": ARN, "client_id": "client-1", "issuer": ISSUER, **options})


def test_an_option_that_does_not_exist() -> None:
    """It is a TypeError with its name."""
    with pytest.raises(TypeError, match="audience"):
        presets.aws_alb(ARN, "client-1", ISSUER, audience="x")  # type: ignore[call-arg]


def test_arguments_of_a_wrong_type() -> None:
    """They are refused with what to pass."""
    wrong: Any = None
    with pytest.raises(ConfigurationError, match="load_balancer is a list of texts, not None"):
        presets.aws_alb(wrong, "client", "https://id.example")
    arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/a/b"
    with pytest.raises(ConfigurationError, match="this is not a URL"):
        presets.aws_alb(arn, "client", "https://id.example", keys_url=5)  # type: ignore[arg-type]
