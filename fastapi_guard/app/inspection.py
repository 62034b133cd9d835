"""Inspect a token for the operator: its kind, issuer, audience, key and times, against the Auths of an application.

``verify`` of each Auth has the verdict. The findings beside it are read from the unverified token, and name every
difference at once, where a verification stops at the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import HTTPException

from fastapi_guard.auth import Auth
from fastapi_guard.events.publishing import on_one_line
from fastapi_guard.exceptions import AuthError
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.jwt.compact import Header, MalformedToken, decode_base64url, decode_header, decode_object, split
from fastapi_guard.jwt.keys import key_id
from fastapi_guard.jwt.kinds import ID_TOKEN_MARKS

_TIMES: Final = ("iat", "nbf", "exp", "auth_time")
# The claims that are shown: the others may be personal data.
_SHOWN: Final = ("iss", "sub", "aud", "azp", "client_id", "tid", "scope", "scp", "jti", *_TIMES)
_ENCRYPTED_PARTS: Final = 5
_SIGNED_PARTS: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The decision of one Auth about a token.

    Attributes:
        auth: The name of the Auth.
        accepted: Whether it accepts the token; ``None`` where it cannot decide now.
        reason: Why it does not, in one word.
        findings: Every difference from its configuration.
    """

    auth: str
    accepted: bool | None
    reason: str | None = None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """The content of a token, and the decisions of Auths about it.

    Attributes:
        form: "signed", "encrypted" or "opaque".
        header: ``alg``, ``kid`` and ``typ``.
        claims: Issuer, audience, subject, client, scopes and times, not verified; times in RFC 3339.
        findings: What is remarkable whatever the configuration: another kind of token, expired, malformed.
        verdicts: The decision of each Auth.
    """

    form: str
    header: Mapping[str, str | None] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict of what JSON has."""
        return asdict(self)

    def __str__(self) -> str:
        """Return it as a report, each line of which is ours: a claim has no line ends in it."""
        members = {**self.header, **self.claims}
        lines = [f"form: {self.form}", *(f"{name}: {value}" for name, value in members.items() if value is not None)]
        lines += [f"! {finding}" for finding in self.findings]
        for verdict in self.verdicts:
            decided = {True: "accepted", False: f"refused: {verdict.reason}", None: f"undecided: {verdict.reason}"}
            lines += [f"{verdict.auth}: {decided[verdict.accepted]}", *(f"  {finding}" for finding in verdict.findings)]
        return "\n".join(map(on_one_line, lines))


async def inspect_token(raw: str, auths: Sequence[Auth[Any]], now: float) -> Inspection:
    """Return what a token contains, and the verdict of each of ``auths``.

    Args:
        raw: The token.
        auths: The Auths; of one with several providers, each provider is an Auth.
        now: Seconds since the epoch, for what is said about times.
    """
    verdicts = [await _verdict(raw, name, auth) for name, auth in _named(auths)]
    parts = raw.count(".") + 1
    if parts != _SIGNED_PARTS:
        encrypted = parts == _ENCRYPTED_PARTS
        finding = (
            "it is encrypted (JWE): no Auth decrypts, so configure the issuer to send signed access tokens"
            if encrypted
            else "it is not a JWT: an opaque token needs introspection, an API key or a session its own Auth"
        )
        form = "encrypted" if encrypted else "opaque"
        return Inspection(form=form, findings=(finding,), verdicts=tuple(verdicts))
    try:
        header, claims = _decoded(raw)
    except MalformedToken as error:
        return Inspection(form="signed", findings=(f"it is malformed: {error}",), verdicts=tuple(verdicts))
    differences = {name: tuple(_differences(auth, header, claims)) for name, auth in _named(auths)}
    return Inspection(
        form="signed",
        header=asdict(header),
        claims={name: _readable(name, claims[name]) for name in _SHOWN if name in claims},
        findings=(*_kinds(header, claims), *_times(claims, now)),
        verdicts=tuple(
            Verdict(auth=one.auth, accepted=one.accepted, reason=one.reason, findings=differences[one.auth])
            for one in verdicts
        ),
    )


def _named(auths: Sequence[Auth[Any]]) -> Iterator[tuple[str, Auth[Any]]]:
    for auth in auths:
        providers: Mapping[str, Auth[Any]] = getattr(auth, "providers", {})
        yield from ((f"{auth.name}/{name}", provider) for name, provider in providers.items())
        if not providers:
            yield auth.name, auth


async def _verdict(raw: str, name: str, auth: Auth[Any]) -> Verdict:
    try:
        principal = await auth.verify(raw)
    except HTTPException as error:
        reason = error.reason if isinstance(error, AuthError) else str(error.status_code)
        return Verdict(auth=name, accepted=None if error.status_code == 503 else False, reason=reason)
    accepted = principal is not None and principal is not False
    return Verdict(auth=name, accepted=accepted, reason=None if accepted else "refused")


def _decoded(raw: str) -> tuple[Header, dict[str, Any]]:
    _, header, payload, _ = split(raw.encode("ascii", "replace"))
    return decode_header(header), decode_object(decode_base64url(payload))


def _readable(name: str, value: object) -> object:
    if name in _TIMES and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
        except (OverflowError, ValueError, OSError):
            return value
    return value


def _kinds(header: Header, claims: Mapping[str, Any]) -> Iterator[str]:
    uses = {str(claims.get(name, "")).lower() for name in ("token_use", "typ", "token_type")}
    marks = sorted({*ID_TOKEN_MARKS, "nonce"}.intersection(claims))
    if marks or not uses.isdisjoint({"id", "id_token"}):
        yield f"this is an ID token ({', '.join(marks) or 'by its type'}): send the access token instead"
    if not uses.isdisjoint({"refresh", "refresh_token", "offline"}):
        yield "this is a refresh token: exchange it for an access token"
    if "events" in claims:
        yield "this is a security event or logout token, not an access token"
    if "htm" in claims and "htu" in claims:
        yield "this is a DPoP proof: it belongs into the header DPoP, beside the token"
    if "cnf" in claims:
        yield "it is bound to a key: without its proof (DPoP) it is refused"
    if header.alg.lower() == "none":
        yield "it is not signed: its alg is 'none'"


def _times(claims: Mapping[str, Any], now: float) -> Iterator[str]:
    moments = {name: claims[name] for name in _TIMES if name in claims}
    for name, moment in moments.items():
        if isinstance(moment, bool) or not isinstance(moment, int | float):
            yield f"{name} is not a number: {type(moment).__name__}"
        elif name == "exp" and moment <= now:
            yield f"it expired {_seconds(now - moment)} ago"
        elif name == "nbf" and moment > now:
            yield f"it is valid in {_seconds(moment - now)}: compare the clocks"
        elif name == "iat" and moment > now:
            yield f"it was issued {_seconds(moment - now)} in the future: compare the clocks"
    if "exp" not in claims:
        yield "it has no exp, so it never expires"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _differences(auth: Auth[Any], header: Header, claims: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(auth, JWTAuth):
        return
    config = auth.config
    algorithms = tuple(config.algorithms or ())
    if header.alg not in algorithms:
        yield f"alg is {header.alg}, and {', '.join(algorithms)} is accepted"
    kids = [key_id(key) for key in config.own_keys()]
    if kids and header.kid is not None and header.kid not in kids:
        yield f"kid is {header.kid}, and the keys are {', '.join(kids)}"
    if auth.issuers and claims.get("iss") not in auth.issuers:
        yield _other_issuer(claims, auth.issuers)
    audiences = auth.config.rules.audiences
    named = claims.get(config.rules.audience_claim)
    listed = named if isinstance(named, list) else [named]
    if audiences and audiences.isdisjoint(value for value in listed if isinstance(value, str)):
        yield f"the audience is {named}, and {', '.join(sorted(audiences))} is accepted"
    if not audiences and named is not None:
        yield f"the audience is {named}, and none is configured"


def _other_issuer(claims: Mapping[str, Any], issuers: Sequence[str]) -> str:
    found = claims.get("iss")
    expected = " or ".join(issuers)
    hosts = {_host_of(issuer) for issuer in issuers} - {""}
    tenant = claims.get("tid")
    if isinstance(found, str) and _host_of(found) in hosts:
        return f"it is another tenant's of the same issuer: iss is {found}, and {expected} is accepted"
    if isinstance(tenant, str) and not any(tenant in issuer for issuer in issuers):
        return f"it is another tenant's ({tenant}): iss is {found}, and {expected} is accepted"
    return f"it is another issuer's: iss is {found}, and {expected} is accepted"


def _host_of(issuer: str) -> str:
    try:
        return urlsplit(issuer).netloc
    except ValueError:
        return ""
