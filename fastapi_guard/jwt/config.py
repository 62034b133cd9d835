"""JWTConfig: the keys that sign and verify, and what a token has to be (RFC 7519 4.1, RFC 8725)."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from joserfc.jwk import Key
from pydantic import AnyUrl

from fastapi_guard.events import logger
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.jwt.algorithms import ASYMMETRIC, SYMMETRIC, as_algorithms
from fastapi_guard.jwt.compact import MAX_KID_LENGTH, decode_base64url, decode_header, encode_object
from fastapi_guard.jwt.keys import (
    KeyInput,
    as_keys,
    check_key,
    derive_algorithms,
    key_id,
    public_jwks,
    signing_algorithm,
    usable_keys,
)
from fastapi_guard.jwt.kinds import ACCESS_TOKEN_TYPE, ID_TOKEN_MARKS, OTHER_KINDS, marks_of, media_type
from fastapi_guard.jwt.protocols import KeySource, SharedKeySource, is_source, source_of
from fastapi_guard.jwt.rules import ClaimRules
from fastapi_guard.jwt.verification_keys import VerificationKeys
from fastapi_guard.stores.hidden import plain

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel
    from joserfc.jwt import JWTClaimsRegistry

MAX_LEEWAY_SECONDS: Final = 300
_TOKEN_TYPES: Final = ("JWT", ACCESS_TOKEN_TYPE)


@dataclass(frozen=True, slots=True)
class JWTConfig:
    """How tokens are issued and verified. It is checked when constructed, and never changes.

    Attributes:
        key: A joserfc key, a KeySet, PEM or JWK text, a list of these, or a source of keys: KeyFile, RemoteKeySet. Of
            several, the first signs and all verify. ``None`` where ``JWTAuth.fetch_jwks`` brings the keys of an issuer.
        algorithms: The closed list of accepted algorithms, the first that fits the key signs. ``None`` derives it
            from the keys: RSA is RS256, EC that of its curve, OKP Ed25519 and EdDSA, oct HS256.
        issuer_url: The ``iss`` of issued tokens, required exactly of every other; a URL of pydantic becomes its text.
        audience: The ``aud`` of issued tokens, a text or several; a token has to name one of them. Where it is
            ``None``, a token that names an audience is refused.
        audience_claim: The claim that names the audience, where an issuer has another than ``aud``: ``client_id``,
            ``azp``. A token that has an ``aud`` beside it has to name one of the audiences there too.
        access_mark: Claims of which a token must have one, each with the value or the values that are accepted, or
            ``True`` for any, so that an ID token is not accepted as an access token. With keys that are fetched from
            another issuer (RemoteKeySet, ``fetch_jwks``) the default is ``scope``, ``scp``, ``token_use`` "access",
            ``typ`` "Bearer", a ``client_id`` that is not the audience, or such an ``azp`` beside an audience that is a
            URI; a header ``typ`` of at+jwt is always a mark. With other keys there is no default.
        no_id_tokens: The other issuer never issues ID tokens, so that a token needs no mark; it is logged.
        expiration_seconds: The lifetime of issued tokens. ``None`` issues and accepts tokens that never expire.
        leeway_seconds: The difference of clocks that ``exp``, ``nbf`` and ``iat`` are forgiven, at most 300.
        header: Further members of the header of issued tokens.
        claims_registry: Checks of joserfc that come on top of these, but for its own of ``exp``, ``nbf`` and ``iat``.
            An ``aud`` among them counts as an audience.
        token_types: The accepted values of ``typ``, where a token has one; issued tokens carry the first.
        requires_type: Whether a token without ``typ`` is refused.
        max_token_bytes: The length in bytes above which a token is refused unread.
        cache_size: How many verified tokens are remembered, 0 for none.
        profile: ``rfc9068`` issues and accepts JWT access tokens of RFC 9068 alone: ``typ`` is at+jwt, and ``iss``,
            ``exp``, ``aud``, ``sub``, ``client_id``, ``iat`` and ``jti`` are all there.
        source: The ``key``, where it is a source of keys that change by themselves.
        rules: What the claims of a token have to be.

    Raises:
        ConfigurationError: A setting is missing, insecure or in conflict with another; the message has the remedy.
    """

    _: KW_ONLY
    key: KeyInput | KeySource | SharedKeySource | None = field(default=None, repr=False)
    algorithms: Sequence[str] | None = None
    issuer_url: str | AnyUrl | None = None
    audience: str | AnyUrl | Sequence[str | AnyUrl] | None = None
    expiration_seconds: int | None = 3600
    leeway_seconds: int = 10
    header: Mapping[str, Any] = field(default_factory=dict)
    claims_registry: "JWTClaimsRegistry | None" = field(default=None, repr=False)
    audience_claim: str = "aud"
    access_mark: Mapping[str, Any] | None = None
    no_id_tokens: bool = False
    token_types: Sequence[str] = _TOKEN_TYPES
    requires_type: bool = False
    max_token_bytes: int = 16_384
    cache_size: int = 0
    profile: Literal["rfc9068"] | None = None
    source: KeySource | None = field(init=False, repr=False, compare=False)
    _keys: tuple[Key, ...] = field(init=False, repr=False, compare=False)
    _algorithms: tuple[str, ...] = field(init=False, repr=False, compare=False)
    rules: ClaimRules = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check and normalise; nothing that was passed is changed."""
        self._take_keys()
        self._take_numbers()
        self._take_profile()
        self._take_texts()
        self._take_header()
        if self.expiration_seconds is None:
            logger.warning("JWTConfig(expiration_seconds=None): tokens without exp are issued and accepted")

    @property
    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public halves of the keys, as a JWK Set (RFC 7517 5).

        Raises:
            ConfigurationError: There is none, so that nothing symmetric can be published by mistake.
        """
        return public_jwks(self.own_keys(), self._algorithms)

    def verification_keys(self) -> VerificationKeys | None:
        """Return the keys that verify, imported for use; ``None`` where they come from elsewhere.

        Raises:
            ConfigurationError: None of them may verify.
        """
        if not self._keys:
            return None
        keys = VerificationKeys(self._keys, self._algorithms)
        if not keys:
            msg = "no key may verify: its key_ops say otherwise"
            raise ConfigurationError(msg)
        return keys

    def published_keys(self, document: object) -> VerificationKeys:
        """Return the keys of an issuer's JWK Set that verify; none where it holds none that can be used."""
        return VerificationKeys(usable_keys(document, self._algorithms), self._algorithms)

    @property
    def can_sign(self) -> bool:
        """Whether tokens can be issued: the first key is private, and may sign."""
        keys = self.own_keys()
        return bool(keys) and signing_algorithm(keys[0], self._algorithms) is not None

    def signing_key(self) -> tuple["JWSAlgModel", Key, str]:
        """Return the algorithm, the key and its ``kid`` that tokens are signed with.

        Raises:
            ConfigurationError: The first key is not private, or may not sign.
        """
        keys = self.own_keys()
        key = keys[0] if keys else None
        algorithm = None if key is None else signing_algorithm(key, self._algorithms)
        if key is None or algorithm is None:
            msg = "there is no key to sign with: the first key must be private, and its use and key_ops allow it"
            raise ConfigurationError(msg)
        return algorithm, key, key_id(key)

    def own_keys(self) -> tuple[Key, ...]:
        """Return the keys that are held here, none where an issuer publishes them."""
        # A source may hold private keys too, as a KeyFile does; the first of them signs.
        own: Callable[[], tuple[Key, ...]] | None = getattr(self.source, "own_keys", None)
        return self._keys if own is None else own()

    def issued_header(self, algorithm: str, kid: str) -> dict[str, Any]:
        """Return the header of an issued token: ``typ`` is the first of ``token_types``, unless ``header`` has one."""
        return {"alg": algorithm, "kid": kid, "typ": self.token_types[0], **self.header}

    def _take_keys(self) -> None:
        if self.key is None or is_source(self.key):
            keys: tuple[Key, ...] = ()
            algorithms = self.algorithms
            if algorithms is None:
                algorithms = ASYMMETRIC
                if self.key is None:
                    msg = "pass a key; or, for keys that fetch_jwks brings, name the algorithms"
                    raise ConfigurationError(msg)
            names = as_algorithms(algorithms)
            if not SYMMETRIC.isdisjoint(names):
                msg = "a symmetric algorithm needs a key of its own: keys from elsewhere are public"
                raise ConfigurationError(msg)
        else:
            keys = as_keys(self.key)  # type: ignore[arg-type]
            names = derive_algorithms(keys) if self.algorithms is None else as_algorithms(self.algorithms)
            for key in keys:
                check_key(key, names)
        object.__setattr__(self, "_keys", keys)
        object.__setattr__(self, "source", None if keys or self.key is None else source_of(self.key, names))
        object.__setattr__(self, "algorithms", names)
        object.__setattr__(self, "_algorithms", names)

    def _take_numbers(self) -> None:
        for name, least, most in (
            ("expiration_seconds", 1, None),
            ("leeway_seconds", 0, MAX_LEEWAY_SECONDS),
            ("max_token_bytes", 1, None),
            ("cache_size", 0, None),
        ):
            value = getattr(self, name)
            if name == "expiration_seconds" and value is None:
                continue
            if type(value) is not int or value < least or (most is not None and value > most):
                msg = (
                    f"{name} is a whole number from {least}{'' if most is None else f' to {most}'}, not {shown(value)}"
                )
                raise ConfigurationError(msg)

    def _take_profile(self) -> None:
        if self.profile is None:
            return
        if self.profile != "rfc9068":
            msg = f'profile is "rfc9068" or None, not {shown(self.profile)}'
            raise ConfigurationError(msg)
        if self.issuer_url is None or not self.audience or self.expiration_seconds is None:
            msg = 'profile="rfc9068" needs issuer_url, audience and expiration_seconds (RFC 9068 4)'
            raise ConfigurationError(msg)
        if tuple(self.token_types) not in (_TOKEN_TYPES, (ACCESS_TOKEN_TYPE,)):
            msg = 'profile="rfc9068" decides token_types: leave them out'
            raise ConfigurationError(msg)
        object.__setattr__(self, "token_types", (ACCESS_TOKEN_TYPE,))

    def _take_texts(self) -> None:
        if not isinstance(self.audience_claim, str) or not self.audience_claim:
            msg = f'audience_claim is the name of a claim, such as "client_id", not {shown(self.audience_claim)}'
            raise ConfigurationError(msg)
        for name in ("requires_type", "no_id_tokens"):
            if type(getattr(self, name)) is not bool:
                msg = f"{name} is True or False, not {shown(getattr(self, name))}"
                raise ConfigurationError(msg)
        issuer = plain(self.issuer_url)
        object.__setattr__(self, "issuer_url", issuer)
        object.__setattr__(self, "audience", plain(self.audience))
        if issuer is not None and (not isinstance(issuer, str) or not issuer):
            msg = "issuer_url is the exact text of the iss claim, or None"
            raise ConfigurationError(msg)
        audiences = _texts("audience", () if self.audience is None else self.audience, empty=self.audience is None)
        registry: JWTClaimsRegistry | None = None
        if self.claims_registry is not None:
            from fastapi_guard.jwt.registry import timeless  # noqa: PLC0415 - loads what few configurations have

            registry = timeless(self.claims_registry)
        registered: Mapping[str, Any] = {} if registry is None else registry.options.get("aud", {})
        value = registered.get("value", ())
        extra = [*(value if isinstance(value, list) else [value]), *registered.get("values", ())]
        also = tuple(text for text in extra if isinstance(text, str))
        if not isinstance(self.audience, str):
            object.__setattr__(self, "audience", audiences or also or None)
        types = _texts("token_types", self.token_types, empty=False)
        object.__setattr__(self, "token_types", types)
        rules = ClaimRules(
            issuers=frozenset() if issuer is None else frozenset({issuer}),
            audiences=frozenset(audiences).union(also),
            audience_claim=self.audience_claim,
            token_types=frozenset(map(media_type, types)),
            requires_type=self.requires_type or self.profile is not None,
            requires_exp=self.expiration_seconds is not None,
            leeway_seconds=self.leeway_seconds,
            profile=self.profile,
            registry=registry,
            **self._kind_rules(),
        )
        object.__setattr__(self, "rules", rules)

    def _kind_rules(self) -> dict[str, Any]:
        """Return the rules that tell access tokens from the other tokens of an issuer that is not this application."""
        shared = callable(getattr(self.key, "for_algorithms", None)) and not hasattr(self.source, "own_keys")
        is_foreign = self.key is None or shared
        if self.no_id_tokens and (self.access_mark is not None or not is_foreign):
            msg = "no_id_tokens is for keys that are fetched from another issuer, without access_mark: leave it out"
            raise ConfigurationError(msg)
        if self.no_id_tokens:
            logger.warning("JWTConfig(no_id_tokens=True): an ID token of that issuer would be accepted")
        if self.no_id_tokens or not (is_foreign or self.access_mark is not None):
            return {}
        is_default = self.access_mark is None
        return {
            "access_marks": marks_of(self.access_mark),
            # With a mark of their own, access tokens may have a nonce.
            "id_token_marks": ID_TOKEN_MARKS | {"nonce"} if is_default else ID_TOKEN_MARKS,
            "other_kinds": OTHER_KINDS["access"],
            "refuses_events": True,
        }

    def _take_header(self) -> None:
        if not isinstance(self.header, Mapping) or not all(isinstance(name, str) for name in self.header):
            msg = f"header is a mapping of members by their names, not {type(self.header).__name__}"
            raise ConfigurationError(msg)
        fixed = sorted({"alg", "kid", "crit", "b64"}.intersection(self.header))
        if fixed:
            msg = f"header cannot set {', '.join(fixed)}: these follow from the key, or change what is signed"
            raise ConfigurationError(msg)
        typ = self.header.get("typ", self.token_types[0])
        if not isinstance(typ, str) or media_type(typ) not in self.rules.token_types:
            msg = f"header sets a typ that token_types does not accept: {shown(typ)}"
            raise ConfigurationError(msg)
        # Where the key that signs comes later, so does its kid: there has to be room for any.
        kid = key_id(self._keys[0]) if self._keys else "k" * MAX_KID_LENGTH
        try:
            segment = encode_object(self.issued_header(self._algorithms[0], kid))
            decode_header(segment)
        except (TypeError, ValueError) as error:
            msg = f"header cannot be that of a token: {error}"
            raise ConfigurationError(msg) from None
        # A copy, which changes neither here nor with what was passed.
        members = json.loads(decode_base64url(segment))
        object.__setattr__(self, "header", MappingProxyType({name: members[name] for name in self.header}))


def _texts(name: str, value: object, *, empty: bool) -> tuple[str, ...]:
    texts: Any = (value,) if isinstance(value, str) else value
    is_collection = isinstance(texts, list | tuple | set | frozenset)
    if not is_collection or not all(isinstance(text, str) and text for text in texts):
        msg = f"{name} is text or a list of texts, not {shown(value)}"
        raise ConfigurationError(msg)
    if not texts and not empty:
        msg = f"{name} is empty: name at least one"
        raise ConfigurationError(msg)
    return tuple(texts)
