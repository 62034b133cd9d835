"""One passkey: the public half of a credential, as it is kept of an enrolled factor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from fastapi_guard.login.enrolled import EnrolledFactor
from fastapi_guard.stores.values import Count, RecordForm

KIND: Final = "passkey"


@dataclass(frozen=True, kw_only=True, slots=True)
class Passkey:
    """The public half of a WebAuthn credential. None of it is secret.

    Attributes:
        credential_id: The id that the authenticator chose, at most 1023 bytes.
        public_key: The public key as COSE.
        sign_count: The highest signature counter that was seen; 0 where the authenticator has no counter.
        user_handle: The random bytes that identify the user to authenticators; the same for all passkeys of a user.
        backup_eligible: Whether the passkey can be synchronised between devices. It never changes.
        backed_up: Whether it was synchronised when it was last used.
        transports: How browsers reach the authenticator, such as ``"internal"`` or ``"usb"``.
        aaguid: The model of the authenticator, a UUID; zeros where it is not disclosed.
    """

    credential_id: bytes
    public_key: bytes
    sign_count: Count
    user_handle: bytes
    backup_eligible: bool
    backed_up: bool
    transports: Sequence[str] = ()
    aaguid: str = ""

    @classmethod
    def of(cls, factor: EnrolledFactor) -> "Passkey":
        """Read the ``data`` of an enrolled factor.

        Raises:
            ServiceUnavailable: It cannot be read.
        """
        return _FORM.read(factor.data)

    def stored_in(self, factor: EnrolledFactor) -> EnrolledFactor:
        """Return ``factor`` with this passkey as its ``data``, under the id that the credential has."""
        return replace(factor, id=factor_id(self.credential_id), data=_FORM.encoded(self).decode("ascii"))

    @property
    def methods(self) -> tuple[str, ...]:
        """``("swk",)`` where the passkey is synchronised, and its key software (RFC 8176), else ``("hwk",)``."""
        return ("swk",) if self.backup_eligible else ("hwk",)


_FORM: Final = RecordForm(Passkey, "a passkey")


def factor_id(credential_id: bytes) -> str:
    """Return the id of the factor with this credential: of one length, and taken for every other user."""
    return sha256(b"passkey:" + credential_id).hexdigest()
