"""The form of refresh tokens, and the record of a family of them.

A token is 64 characters: 16 random bytes that name its family, 32 of its own. Neither is stored. The record of the
family is under the hash of its name, and has the hash of the current token.
"""

import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import Any, Final, NamedTuple, cast

from fastapi_guard.claims import Claims
from fastapi_guard.events import logger
from fastapi_guard.exceptions import ServiceUnavailable, Unauthorized
from fastapi_guard.login.client import Client
from fastapi_guard.login.state import EXPIRY_SLACK_SECONDS, owner_of_claims
from fastapi_guard.stores.kinds import FAMILY
from fastapi_guard.stores.protocol import Record
from fastapi_guard.stores.values import check_moments, check_texts, decoded

INVALID_REFRESH_TOKEN: Final = "The refresh token is invalid"

_NAME_BYTES: Final = 16
_SECRET_BYTES: Final = 32
_TOKEN_LENGTH: Final = (_NAME_BYTES + _SECRET_BYTES) * 4 // 3  # a multiple of three bytes: one spelling, no padding


@dataclass(frozen=True, slots=True)
class Family:
    """The tokens that followed from one login.

    Attributes:
        id: The argument of ``end``, and the ``sid`` of access tokens. No token can be made of it.
        subject: The ``sub`` of its claims.
        created_at: When it was issued, in seconds since the epoch.
        rotated_at: When it was last rotated, in seconds since the epoch; ``created_at`` at first.
        expires_at: When it expires unless it is rotated before.
        claims: The claims that were stored with it.
        client: The client that rotated it last.
        ends_at: When it ends however often it is rotated, in seconds since the epoch.
    """

    id: str
    subject: str
    created_at: float
    rotated_at: float
    expires_at: float
    claims: Claims = field(default_factory=dict)
    client: Client = field(default_factory=Client)
    ends_at: float = 0.0


@dataclass(frozen=True, slots=True)
class FamilyState:
    """The value of a family's record: hashes of tokens in hexadecimal, and no token.

    Attributes:
        auth: The name of the RefreshTokens that issued it.
        claims: The claims of the family.
        created_at: Seconds since the epoch.
        rotated_at: Seconds since the epoch.
        current: The hash of the current token.
        previous: The hash of the token before it.
        nonce: What the current token was derived with, until the grace is over.
        address: The address of the client that rotated it last.
        agent: Its user agent.
    """

    auth: str
    claims: Claims
    created_at: float
    rotated_at: float
    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)
    nonce: str | None = field(default=None, repr=False)
    address: str | None = None
    agent: str | None = None

    @classmethod
    def of(cls, record: Record) -> "FamilyState":
        """Return the state in a record. Records of version 0.1.0 have no ``auth``, and belong to no Auth.

        Raises:
            ServiceUnavailable: The record cannot be read.
        """
        return decoded(record.value, partial(cls._read, record.expires_at), "a refresh family")

    @classmethod
    def _read(cls, expires_at: float | None, members: dict[str, Any]) -> "FamilyState":
        state = cls(**{"auth": "", **members})
        owner_of_claims(state.claims, "refresh token")
        check_texts(state.auth, state.address, state.agent)
        check_moments(state.created_at, state.rotated_at, expires_at)
        for text in (state.current, state.previous or "", state.nonce or ""):
            bytes.fromhex(text)
        return state

    @property
    def client(self) -> Client:
        """The client that rotated the family last."""
        return Client(self.address, self.agent)

    def difference(self, sender: Client) -> str | None:
        """Return how ``sender`` differs from the client that rotated the family last, ``None`` where it does not.

        Two tabs of one browser have one address and one agent. Where they differ a token may have been stolen.
        """
        if sender == Client() or self.client in (Client(), sender):
            return None
        return "other_agent" if sender.agent != self.agent else "other_address"

    def rotated(self, presented: "Token", claims: Claims, client: Client, now: float) -> tuple["FamilyState", "Token"]:
        """Return the state after ``presented``, the current token, was used, and the token that follows it."""
        nonce = secrets.token_hex(_SECRET_BYTES)
        successor = presented.successor(nonce)
        state = replace(
            self,
            claims=claims,
            rotated_at=now,
            current=successor.digest,
            previous=presented.digest,
            nonce=nonce,
            address=client.address or self.address,
            agent=client.agent or self.agent,
        )
        return state, successor

    def encoded(self) -> bytes:
        """Return the value of the record.

        Raises:
            TypeError: A claim is not JSON.
            ValueError: A number is not finite.
        """
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False).encode("ascii")


class Token(NamedTuple):
    """A refresh token and the name of its family."""

    text: str
    name: bytes

    @classmethod
    def new(cls) -> "Token":
        """Return the first token of a new family."""
        name = secrets.token_bytes(_NAME_BYTES)
        return cls(_text(name + secrets.token_bytes(_SECRET_BYTES)), name)

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Return a presented token.

        Raises:
            Unauthorized: The text cannot be a token.
        """
        if isinstance(text, str) and len(text) == _TOKEN_LENGTH and text.isascii():
            with suppress(ValueError):
                raw = urlsafe_b64decode(text)
                if _text(raw) == text:  # the decoder skips characters outside of its alphabet
                    return cls(text, raw[:_NAME_BYTES])
        raise invalid_refresh_token("malformed")

    @property
    def family(self) -> str:
        """The id of the family."""
        return sha256(self.name).hexdigest()

    @property
    def key(self) -> str:
        """The key of the family's record."""
        return FAMILY + self.family

    @property
    def digest(self) -> str:
        """The hash of the token."""
        return sha256(self.text.encode("ascii")).hexdigest()

    def successor(self, nonce: str) -> "Token":
        """Return the token that follows this one with a nonce: always the same, although only hashes are stored."""
        secret = hmac.digest(self.text.encode("ascii"), bytes.fromhex(nonce), "sha256")
        return Token(_text(self.name + secret), self.name)


def invalid_refresh_token(reason: str) -> Unauthorized:
    """Return the refusal of a refresh token, whatever the ``reason``, which goes to the log alone."""
    return Unauthorized(INVALID_REFRESH_TOKEN, reason=reason)


def claims_in(verdict: object) -> Mapping[str, Any]:
    """Return the claims that ``may_continue`` returned in place of ``True``.

    Raises:
        ServiceUnavailable: It returned something else, so that it is not known whether the family may continue.
    """
    if not isinstance(verdict, Mapping):
        logger.error("may_continue returned %s, not True, False or claims", type(verdict).__name__)
        raise ServiceUnavailable(reason="may_continue")
    return verdict


def family_of(record: Record) -> Family:
    """Return the family of a record.

    Raises:
        ServiceUnavailable: The record cannot be read, such as one without an expiry.
    """
    state = FamilyState.of(record)
    expires_at = cast("float", record.expires_at)
    return Family(
        record.key.removeprefix(FAMILY),
        state.claims["sub"],
        state.created_at,
        state.rotated_at,
        expires_at - EXPIRY_SLACK_SECONDS,
        state.claims,
        state.client,
    )


def record_of(key: str, state: FamilyState, expires_at: float) -> Record:
    """Return the record of a family that expires then.

    Raises:
        ValueError: The claims have no ``sub``, or are not JSON.
    """
    owner = owner_of_claims(state.claims, "refresh token")
    try:
        return Record(key, state.encoded(), owner, expires_at + EXPIRY_SLACK_SECONDS)
    except TypeError as error:
        msg = "the claims of a refresh token are JSON: texts, numbers, lists, objects"
        raise ValueError(msg) from error


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode("ascii")
