"""One passkey: the public half of a credential, as it is kept of an enrolled factor."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Final

from fastapi_guard.jwt.compact import decode_base64url, encode_base64url
from fastapi_guard.login.enrolled import EnrolledFactor

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
    sign_count: int
    user_handle: bytes
    backup_eligible: bool
    backed_up: bool
    transports: Sequence[str] = ()
    aaguid: str = ""

    @classmethod
    def of(cls, factor: EnrolledFactor) -> "Passkey":
        """Read the ``data`` of an enrolled factor."""
        members = json.loads(factor.data)
        for name in ("credential_id", "public_key", "user_handle"):
            members[name] = decode_base64url(members[name].encode("ascii"))
        return cls(**{**members, "transports": tuple(members["transports"])})

    def stored_in(self, factor: EnrolledFactor) -> EnrolledFactor:
        """Return ``factor`` with this passkey as its ``data``, under the id that the credential has."""
        members = asdict(self)
        for name in ("credential_id", "public_key", "user_handle"):
            members[name] = encode_base64url(members[name]).decode("ascii")
        members["transports"] = list(self.transports)
        data = json.dumps(members, separators=(",", ":"))
        return replace(factor, id=factor_id(self.credential_id), data=data)

    @property
    def methods(self) -> tuple[str, ...]:
        """``("swk",)`` where the passkey is synchronised, and its key software (RFC 8176), else ``("hwk",)``."""
        return ("swk",) if self.backup_eligible else ("hwk",)


def factor_id(credential_id: bytes) -> str:
    """Return the id of the factor with this credential: of one length, and taken for every other user."""
    return sha256(b"passkey:" + credential_id).hexdigest()
