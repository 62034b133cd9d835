"""The keys that verify tokens, found by the header of a token; and a selection from keys that several Auths share."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from joserfc.jwk import Key

from fastapi_guard.jwt.algorithms import model_of
from fastapi_guard.jwt.compact import Header, MalformedToken, decode_header
from fastapi_guard.jwt.keys import fits, key_id, may, public_half
from fastapi_guard.jwt.protocols import SharedKeys

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel


class UnknownKey(MalformedToken):
    """A token names a key, or an algorithm, for which there is no key here.

    Attributes:
        header: The checked header of the token.
    """

    def __init__(self, header: Header, reason: str = "unknown_key") -> None:
        """Keep the header, by which a source finds the key."""
        super().__init__(reason)
        self.header = header


class BadSignature(UnknownKey):
    """No key of that name made the signature; an issuer may have changed the key and kept the name."""

    def __init__(self, header: Header) -> None:
        """Keep the header."""
        super().__init__(header, "bad_signature")


class VerifyingKey:
    """A key in the form that an algorithm of joserfc reads, made once: it does not change from token to token.

    Attributes:
        curve_key_size: The bits of a coordinate of an elliptic curve, ``None`` of another key.
    """

    def __init__(self, key: Key) -> None:
        """Look up what verifies by ``key``."""
        self.curve_key_size: int | None = getattr(key, "curve_key_size", None)
        self._verifies = key.get_op_key("verify")

    def get_op_key(self, operation: Literal["verify"]) -> object:  # noqa: ARG002 - it does nothing else
        """Return what verifies."""
        return self._verifies


@dataclass(frozen=True, slots=True)
class Candidates:
    """The algorithm and the keys that may have signed a token, by its header."""

    header: Header
    algorithm: "JWSAlgModel"
    keys: list[VerifyingKey]


class VerificationKeys:
    """The keys that verify, imported once, found by ``alg`` and ``kid``. A change of keys makes a new one."""

    # A header segment that a valid signature came with always means the same algorithm and key. Headers are few
    # (one for each key of each issuer), the bound is against an issuer that puts something new into each.
    _MAX_HEADERS = 128

    def __init__(self, keys: Iterable[Key], algorithms: Iterable[str]) -> None:
        """Keep the public half of ``keys``; a key that may not verify, or fits no algorithm, is left out."""
        self._by_algorithm: dict[str, list[tuple[str | None, str, VerifyingKey]]] = {name: [] for name in algorithms}
        for key in map(public_half, keys):
            for name, fitting in self._by_algorithm.items():
                if fits(key, name) and may(key, "verify"):
                    fitting.append((key.kid, key_id(key), VerifyingKey(key)))
        self._headers: dict[bytes, Candidates] = {}

    def __bool__(self) -> bool:
        """Return whether any key is left."""
        return any(self._by_algorithm.values())

    def verify(self, signing_input: bytes, header_segment: bytes, signature: bytes) -> Header:
        """Return the checked header of a token whose signature is valid.

        Raises:
            MalformedToken: The header is malformed, its algorithm not allowed, or the signature that of no key here.
            UnknownKey: There is no such key.
        """
        known = self._headers.get(header_segment)
        candidates = self.candidates(header_segment) if known is None else known
        for key in candidates.keys:
            if candidates.algorithm.verify(signing_input, signature, key):
                break
        else:
            raise BadSignature(candidates.header)
        if known is None and len(self._headers) < self._MAX_HEADERS:
            self._headers[header_segment] = candidates
        return candidates.header

    def candidates(self, segment: bytes) -> Candidates:
        """Return the keys that may have signed a token with this header segment.

        A token without a ``kid`` may be of any key of its algorithm. With one, it is of the keys of that name; failing
        these, of the keys that never had a name (a PEM file has none, while its issuer may well send one).

        Raises:
            MalformedToken: The header is malformed, or its algorithm not allowed.
            UnknownKey: There is no such key.
        """
        header = decode_header(segment)
        fitting = self._by_algorithm.get(header.alg)
        if fitting is None:
            raise MalformedToken("algorithm")
        if header.kid is None:
            keys = [key for _, _, key in fitting]
        else:
            named = [key for _, kid, key in fitting if kid == header.kid]
            keys = named or [key for own, _, key in fitting if own is None]
        if not keys:
            raise UnknownKey(header)
        return Candidates(header, model_of(header.alg), keys)


class Selection:
    """The keys of a shared key set that fit the algorithms of one configuration; a KeySource."""

    def __init__(self, keys: SharedKeys, algorithms: tuple[str, ...]) -> None:
        """Select from ``keys``."""
        self._shared = keys
        self._algorithms = algorithms
        self._selected_from: tuple[Key, ...] | None = None
        self._selected = VerificationKeys((), algorithms)

    def peek(self) -> VerificationKeys | None:
        """Return the keys that can be used at once, ``None`` where they have to be loaded."""
        keys = self._shared.current()
        if keys is self._selected_from and keys is not None:
            return self._selected
        return None if keys is None else self._select(keys)

    async def load(self, header: Header | None = None) -> VerificationKeys:
        """Return usable keys; ``header`` is that of a token that the keys of ``peek()`` did not verify.

        Raises:
            ServiceUnavailable: There are none now.
        """
        if header is None:
            return self._select(await self._shared.load())
        return self._select(await self._shared.load_other(header, self._selected_from))

    def _select(self, keys: tuple[Key, ...]) -> VerificationKeys:
        if keys is not self._selected_from:
            self._selected = VerificationKeys(keys, self._algorithms)
            self._selected_from = keys
        return self._selected
