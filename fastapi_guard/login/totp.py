"""TOTP: six digits of an authenticator app, each accepted once (RFC 6238). Needs the extra ``totp``.

The secret is encrypted at rest, bound to its user and factor. A code is compared with the codes of the current step and
its neighbours one by one, so that the step it belongs to is known and can be spent in the Store.
"""

import hashlib
import hmac
import secrets
from base64 import b32encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Final, Literal

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError, ServiceUnavailable, shown
from fastapi_guard.login.enrolled import EnrolledFactor
from fastapi_guard.login.factor import Context, Enrolment, Proof, Strength
from fastapi_guard.login.keyring import Keyring, Secret
from fastapi_guard.login.users import User
from fastapi_guard.stores.protocol import Record
from fastapi_guard.stores.values import RecordForm

try:
    import pyotp
    import segno
except ImportError:
    raise MissingExtraError("pyotp", "totp") from None

Algorithm = Literal["SHA1", "SHA256", "SHA512"]

_SECRET_BYTES: Final = 20  # RFC 4226 4, R6: 160 bits
_DIGESTS: Final = {"SHA1": hashlib.sha1, "SHA256": hashlib.sha256, "SHA512": hashlib.sha512}
_MOST_DRIFT: Final = 10
# Workers whose clocks differ by less than this agree on which steps were spent.
_CLOCK_SKEW_SECONDS: Final = 300
_LONGEST_LABEL: Final = 128
_SPACES: Final = str.maketrans("", "", " \t\r\n-")


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """The ``data`` of an enrolled TOTP: the settings that its app has, which stay when others are configured.

    Attributes:
        secret: Sealed by the Keyring.
        algorithm: The name in the otpauth URI.
        digits: The length of a code.
        period: Seconds of a step.
    """

    secret: str
    algorithm: Algorithm
    digits: int
    period: int

    def __post_init__(self) -> None:
        _check_range("digits", self.digits, 6, 8)
        _check_range("period", self.period, 15, 120)

    @classmethod
    def of(cls, factor: EnrolledFactor) -> "_State":
        return _FORM.read(factor.data)

    def stored_in(self, factor: EnrolledFactor) -> EnrolledFactor:
        return replace(factor, data=_FORM.encoded(self).decode("ascii"))


_FORM: Final = RecordForm(_State, "an authenticator app")


class TOTP:
    """Codes of an authenticator app, as a second factor."""

    name: str = "totp"
    methods: tuple[str, ...] = ("otp",)
    strength: Strength = Strength.CODE

    def __init__(
        self,
        *,
        key: Secret | Mapping[str, Secret],
        issuer: str,
        algorithm: Algorithm = "SHA1",
        digits: int = 6,
        period: int = 30,
        drift: int = 1,
    ) -> None:
        """Encrypt secrets with ``key``, and enrol them under the name of ``issuer``.

        The defaults are what every authenticator app supports; many ignore other values of the URI.

        Args:
            key: At least 32 random bytes, or secrets by id: the first encrypts, the others still decrypt. A secret
                that an older key encrypted is encrypted again when its code is used, or by ``rekey``.
            issuer: The name of the service, as the app shows it.
            algorithm: The hash of the HMAC.
            digits: The length of a code, from 6 to 8.
            period: Seconds of a step, from 15 to 120.
            drift: How many steps a clock may be early or late.

        Raises:
            ConfigurationError: A key is weak, the issuer is empty or has a colon, or a number is out of range.
        """
        if not isinstance(issuer, str) or not issuer.strip() or ":" in issuer or not issuer.isprintable():
            msg = f"issuer is the name of the service without a colon, such as 'Shop', not {shown(issuer)}"
            raise ConfigurationError(msg)
        if algorithm not in _DIGESTS:
            msg = f"algorithm is one of {', '.join(_DIGESTS)}, not {shown(algorithm)}"
            raise ConfigurationError(msg)
        _check_range("digits", digits, 6, 8)
        _check_range("period", period, 15, 120)
        _check_range("drift", drift, 0, _MOST_DRIFT)
        self._keys = Keyring(key, "totp")
        self._issuer = issuer
        self._algorithm: Algorithm = algorithm
        self._digits = digits
        self._period = period
        self._drift = drift

    def usable(self, user: User, enrolled: Sequence[EnrolledFactor]) -> bool:  # noqa: ARG002 - the Protocol's
        """Return whether there is an app."""
        return bool(enrolled)

    async def enrol(
        self,
        context: Context,
        draft: EnrolledFactor,
        details: Mapping[str, Any],  # noqa: ARG002 - the Protocol's
    ) -> Enrolment | None:
        """Return a new secret, shown this once: ``secret`` in base32, ``uri`` for the app, ``qr`` as SVG."""
        secret = b32encode(secrets.token_bytes(_SECRET_BYTES)).decode()
        state = _State(
            secret=self._keys.seal(secret.encode(), draft.subject, draft.id),
            algorithm=self._algorithm,
            digits=self._digits,
            period=self._period,
        )
        uri = _generator(state, secret).provisioning_uri(name=_label(context.user), issuer_name=self._issuer)
        shown = {"secret": secret, "uri": uri, "qr": _svg(uri)}
        return Enrolment(factor=state.stored_in(draft), shown=shown)

    async def confirm(self, context: Context, draft: EnrolledFactor, proof: Mapping[str, Any]) -> EnrolledFactor | None:
        """Return the factor if ``{"code": "..."}`` is its code now; the step is spent, so that no login can use it.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        return draft if await self._spend(context, draft, proof.get("code")) else None

    async def challenge(self, context: Context) -> Mapping[str, Any]:  # noqa: ARG002 - the Protocol's
        """Return nothing: the app needs no challenge."""
        return {}

    async def verify(self, context: Context, proof: Mapping[str, Any]) -> Proof | None:
        """Spend the step that ``{"code": "..."}`` belongs to, for the first enrolled app that shows it.

        Raises:
            ServiceUnavailable: The store cannot be reached, or a secret cannot be decrypted with any configured key.
        """
        code = proof.get("code")
        for factor in context.enrolled:
            if await self._spend(context, factor, code):
                return Proof(methods=self.methods, factor=await self._rekeyed(context, factor))
        return None

    def rekey(self, factor: EnrolledFactor) -> EnrolledFactor | None:
        """Return ``factor`` with its secret encrypted by the first key; ``None`` where it is already.

        Raises:
            ServiceUnavailable: No configured key decrypts it.
        """
        state = _State.of(factor)
        if self._keys.is_current(state.secret):
            return None
        plain = self._opened(factor, state)
        return replace(state, secret=self._keys.seal(plain, factor.subject, factor.id)).stored_in(factor)

    async def _rekeyed(self, context: Context, factor: EnrolledFactor) -> EnrolledFactor:
        rekeyed = self.rekey(factor)
        # Where it was changed in the meantime, the next login encrypts it again.
        return rekeyed if rekeyed is not None and await context.records.replace(factor, rekeyed) else factor

    async def _spend(self, context: Context, factor: EnrolledFactor, code: object) -> bool:
        state = _State.of(factor)
        presented = _presented(code, state.digits)
        generator = _generator(state, self._opened(factor, state).decode())
        matching = None
        # Every step is computed, whichever matches. The earliest of equal codes is spent first.
        for step in self._steps(context.now, state.period):
            if hmac.compare_digest(generator.generate_otp(step), presented) and matching is None:
                matching = step
        if matching is None:
            return False
        # Longer than any worker can take the step for one of the present.
        lifetime = (2 * self._drift + 2) * state.period + _CLOCK_SKEW_SECONDS
        return await context.store.add(Record(f"totp:{factor.id}:{matching}", b"", None, context.now + lifetime))

    def _steps(self, now: float, period: int) -> Iterator[int]:
        current = int(now) // period
        return iter(range(max(0, current - self._drift), current + self._drift + 1))

    def _opened(self, factor: EnrolledFactor, state: _State) -> bytes:
        plain = self._keys.open(state.secret, factor.subject, factor.id)
        if plain is None:
            # The key was dropped from the configuration: whether the code is right cannot be decided.
            raise ServiceUnavailable(reason="totp_key_missing")
        return plain


def _generator(state: _State, secret: str) -> pyotp.TOTP:
    return pyotp.TOTP(secret, digits=state.digits, digest=_DIGESTS[state.algorithm], interval=state.period)


def _presented(code: object, digits: int) -> str:
    # A text that cannot be a code is compared all the same, as one that matches nothing.
    text = code.translate(_SPACES) if isinstance(code, str) and len(code) <= 4 * digits else ""
    return text if len(text) == digits and text.isascii() and text.isdigit() else "-" * digits


def _label(user: User) -> str:
    label = user.login_name[:_LONGEST_LABEL].replace(":", " ")
    return label.encode(errors="replace").decode()


def _svg(uri: str) -> str:
    written = BytesIO()
    # With its namespace: without one a browser shows no SVG in an img element.
    segno.make_qr(uri, error="m").save(
        written, kind="svg", xmldecl=False, nl=False, scale=4, border=4, dark="#000", light="#fff"
    )
    return written.getvalue().decode()


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        msg = f"{name} is a whole number from {least} to {most}, not {shown(value)}"
        raise ConfigurationError(msg)
