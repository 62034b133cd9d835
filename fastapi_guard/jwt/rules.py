"""Check the claims of a token whose signature is valid: issuer, audience, times, type, kind (RFC 7519 4.1, RFC 8725).

Every claim rule is here, once: for JWTAuth, OIDCAuth, Auth0, introspection and the ID tokens of a login.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import EXPIRED_TOKEN, Unauthorized, invalid_token
from fastapi_guard.jwt.kinds import ACCESS_TOKEN_TYPE, ID_TOKEN_MARKS, TokenKind, check_marks, media_type

if TYPE_CHECKING:
    from joserfc.jwt import JWTClaimsRegistry

# The required claims of a JWT access token (RFC 9068 2.2).
ACCESS_TOKEN_CLAIMS: Final = frozenset({"iss", "exp", "aud", "sub", "client_id", "iat", "jti"})
_LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"  # OpenID Connect Back-Channel Logout 2.4
_TEXTS: Final = ("iss", "sub", "jti")


# eq=False: nothing compares rules, and each generated method is compiled at the import.
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClaimRules:
    """The rules for the claims of a token. A value of ``None`` or an empty set does not restrict.

    Attributes:
        issuers: The accepted values of ``iss``, compared exactly.
        audiences: The accepted audiences. Without any, a token that names an audience is refused.
        audience_claim: The claim that names the audience. Where it is another than ``aud``, a token may have an
            ``aud`` beside it, which then has to be one of the audiences too (RFC 7519 4.1.3).
        token_types: The accepted values of the header's ``typ``, in lower case without ``application/``.
        requires_type: Whether a token without ``typ`` is refused.
        requires_exp: Whether a token without ``exp`` is refused.
        leeway_seconds: The difference of clocks that ``exp``, ``nbf``, ``iat`` and ``auth_time`` are forgiven.
        kind: The kind of token that is wanted.
        id_token_marks: Claims that make a token an ID token, refused as an access token.
        other_kinds: Values of claims that name another kind of token, such as ``{"token_use": {"refresh"}}``, in lower
            case.
        refuses_events: Whether any security event token (RFC 8417) is refused, not only logout tokens.
        profile: ``rfc9068`` requires the claims of RFC 9068.
        required: The accepted values of further claims, compared by type and value.
        access_marks: Claims of which an access token must have one, see ``check_marks``. ``None`` requires no mark.
        allows_empty_sub: Whether ``sub`` may be empty, which identifies no one.
        registry: Further checks, by a claims registry of joserfc.
    """

    issuers: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset()
    audience_claim: str = "aud"
    token_types: frozenset[str] = frozenset({"jwt", ACCESS_TOKEN_TYPE})
    requires_type: bool = False
    requires_exp: bool = True
    leeway_seconds: float = 10
    kind: TokenKind = "access"
    id_token_marks: frozenset[str] = ID_TOKEN_MARKS
    other_kinds: Mapping[str, frozenset[str]] = field(default_factory=dict)
    refuses_events: bool = False
    profile: Literal["rfc9068"] | None = None
    required: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    access_marks: Mapping[str, tuple[object, ...]] | None = None
    allows_empty_sub: bool = False
    registry: "JWTClaimsRegistry | None" = field(default=None, repr=False)
    # Claims without any of these need no look at the kind.
    _marks: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Collect the claims that name the kind of a token."""
        object.__setattr__(self, "_marks", self.id_token_marks | {"events", "htm", *self.other_kinds})

    def check_type(self, typ: str | None) -> None:
        """Refuse a token of another type (RFC 8725 3.11); media types are compared without case (RFC 7515 4.1.9).

        Raises:
            Unauthorized: The ``typ`` is not accepted.
        """
        if typ is None:
            if self.requires_type:
                raise invalid_token("token_type")
        elif media_type(typ) not in self.token_types:
            raise invalid_token("token_type")

    def check_times(self, claims: Claims, now: float) -> tuple[float, float]:
        """Refuse a token that is not valid at ``now``; return from when until when it is valid, leeway included.

        All moments are seconds since the epoch. A malformed one never counts as absent.

        Raises:
            Unauthorized: The token has expired, is not yet valid, is of the future, or a time is not a number.
        """
        leeway = self.leeway_seconds
        valid_from, valid_until = -inf, inf
        if "exp" in claims:
            exp = claims["exp"]
            valid_until = (exp if type(exp) is int else _number("exp", exp)) + leeway
            if now >= valid_until:
                raise Unauthorized(EXPIRED_TOKEN, error="invalid_token", reason="expired")
        elif self.requires_exp:
            raise invalid_token("exp_missing")
        if "nbf" in claims:
            nbf = claims["nbf"]
            valid_from = (nbf if type(nbf) is int else _number("nbf", nbf)) - leeway
            if now < valid_from:
                raise invalid_token("nbf_in_the_future")
        if "iat" in claims:
            iat = claims["iat"]
            issued = (iat if type(iat) is int else _number("iat", iat)) - leeway
            if now < issued:
                raise invalid_token("iat_in_the_future")
            valid_from = issued if issued > valid_from else valid_from  # noqa: FURB136 - a call less for each token
        if self.kind == "id" and "auth_time" in claims and now < _number("auth_time", claims["auth_time"]) - leeway:
            raise invalid_token("auth_time_in_the_future")
        if self.registry is not None:  # checks of a subclass may read a clock too
            self.registry.validate(claims)
        return valid_from, valid_until

    def check(self, claims: Claims, typ: str | None = None) -> None:
        """Refuse a token of another issuer, for another audience, or of another kind.

        Args:
            claims: The claims.
            typ: The ``typ`` of the header.

        Raises:
            Unauthorized: A claim is not as it has to be.
        """
        if self.issuers and (type(issuer := claims.get("iss")) is not str or issuer not in self.issuers):
            raise invalid_token("issuer")
        audience = claims.get(self.audience_claim)
        if type(audience) is not str or audience not in self.audiences:
            self._check_audience(claims, self.audience_claim)
        if self.audience_claim != "aud" and "aud" in claims:
            self._check_audience(claims, "aud")
        if not self._marks.isdisjoint(claims):
            self._check_kind(claims)
        self._check_texts(claims)
        if self.profile is not None:
            _check_profile(claims)
        if self.kind == "id":
            self._check_id_token(claims)
        elif self.kind == "logout":
            _check_logout_token(claims)
        if self.required:
            self._check_required(claims)
        if self.access_marks is not None:
            check_marks(claims, self.access_marks, typ, self.audiences)

    def _check_required(self, claims: Claims) -> None:
        for name, accepted in self.required.items():
            value = claims.get(name)
            if not any(type(wanted) is type(value) and wanted == value for wanted in accepted):
                raise invalid_token("required_claim")

    def _check_texts(self, claims: Claims) -> None:
        for name in _TEXTS:
            if name in claims:
                value = claims[name]
                if type(value) is not str or not (value or (name == "sub" and self.allows_empty_sub)):
                    raise invalid_token(name)

    def _check_audience(self, claims: Claims, name: str) -> None:
        if name not in claims:
            if self.audiences:
                raise invalid_token("audience_missing")
            return
        audience = claims[name]
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(text, str) for text in named):
            raise invalid_token("audience_type")
        if self.audiences.isdisjoint(named):
            raise invalid_token("audience")

    def _check_kind(self, claims: Claims) -> None:
        events = claims.get("events")
        if "events" in claims and self.refuses_events:  # RFC 8417 2.2
            raise invalid_token("event_token")
        if isinstance(events, dict) and _LOGOUT_EVENT in events and self.kind != "logout":
            raise invalid_token("logout_token")
        if "htm" in claims and "htu" in claims:  # RFC 9449 4.2
            raise invalid_token("dpop_proof")
        if self.kind == "access" and not self.id_token_marks.isdisjoint(claims):
            raise invalid_token("id_token")
        for name, kinds in self.other_kinds.items():
            if isinstance(value := claims.get(name), str) and value.lower() in kinds:
                raise invalid_token("token_kind")

    def _check_id_token(self, claims: Claims) -> None:
        # OpenID Connect Core 2: both are required. 3.1.3.7: of several audiences, azp names ours.
        if "sub" not in claims or "iat" not in claims:
            raise invalid_token("id_token_claims")
        audience: Any = claims.get("aud")
        if isinstance(audience, list) and len(audience) > 1:
            authorized = claims.get("azp")
            if not isinstance(authorized, str) or authorized not in self.audiences:
                raise invalid_token("authorized_party")


def _check_logout_token(claims: Claims) -> None:
    # OpenID Connect Back-Channel Logout 2.4 and 2.6: never an ID token, once, and about a user or a session.
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(_LOGOUT_EVENT), dict):
        raise invalid_token("logout_event")
    if "nonce" in claims or "iat" not in claims or "jti" not in claims:
        raise invalid_token("logout_claims")
    session = claims.get("sid")
    if session is not None and not (isinstance(session, str) and session):
        raise invalid_token("sid")
    if session is None and "sub" not in claims:
        raise invalid_token("logout_claims")


def _check_profile(claims: Claims) -> None:
    if not claims.keys() >= ACCESS_TOKEN_CLAIMS:
        raise invalid_token("profile")
    client = claims["client_id"]
    if type(client) is not str or not client:
        raise invalid_token("client_id")


def _number(name: str, value: object) -> float:
    # A bool is an int to Python, and not a number to JSON.
    if type(value) is int or (type(value) is float and isfinite(value)):
        return value
    raise invalid_token(name + "_type")
