"""WebAuthn as the relying party sees it: options for a browser, and what it sends back, verified.

The library verifies signatures and parses authenticator data. What it leaves open is refused before (SECURITY 44a):
frames of other sites, JSON that is too deep, ambiguous base64url. Needs the extra ``passkeys``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError
from fastapi_guard.jwt.compact import MalformedToken, decode_base64url, decode_object
from fastapi_guard.login.passkey import Passkey

try:
    import webauthn
    from webauthn.helpers import structs
    from webauthn.helpers.cose import COSEAlgorithmIdentifier
except ImportError:
    raise MissingExtraError("webauthn", "passkeys") from None

Discoverable = Literal["required", "preferred", "discouraged"]
Verification = Literal["required", "preferred", "discouraged"]

LIFETIME_SECONDS: Final = 300
_MOST_CLIENT_DATA: Final = 16_384  # of base64url
_MOST_ID: Final = 1364  # of base64url: 1023 bytes (WebAuthn 4, credential id)
_MOST_HANDLE: Final = 86  # of base64url: 64 bytes (WebAuthn 5.4.3)
_TRANSPORTS: Final = frozenset(transport.value for transport in structs.AuthenticatorTransport)
# EdDSA, ES256 and RS256: one of them is implemented by every authenticator.
_ALGORITHMS: Final = [COSEAlgorithmIdentifier(number) for number in (-8, -7, -257)]
_ANDROID: Final = "android:apk-key-hash:"


@dataclass(frozen=True, slots=True)
class Presented:
    """The parts of a credential that the server reads itself, before a signature is verified.

    Attributes:
        credential: The JSON object that the client sent.
        credential_id: The id of the credential.
        challenge: The challenge in the client data, which the signature covers.
        user_handle: The user handle of an assertion; ``None`` where the authenticator sent none.
        transports: How the browser reached the authenticator, at a registration.
    """

    credential: dict[str, Any]
    credential_id: bytes
    challenge: bytes
    user_handle: bytes | None
    transports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asserted:
    """The signed statement of an authenticator.

    Attributes:
        sign_count: Its signature counter.
        backup_eligible: Whether the passkey can be synchronised.
        backed_up: Whether it is now.
        user_verified: Whether the authenticator verified the user, by a PIN or biometry.
    """

    sign_count: int
    backup_eligible: bool
    backed_up: bool
    user_verified: bool


class RelyingParty:
    """The service that passkeys belong to, by the host ``id`` and the origins of its pages."""

    def __init__(self, rp_id: str, origins: Sequence[str], name: str) -> None:
        """Accept credentials of ``rp_id`` on pages of ``origins``, compared exactly.

        Raises:
            ConfigurationError: An origin is not one of a browser, or ``rp_id`` is not its host or a parent of it.
        """
        _check_id(rp_id)
        if not origins:
            msg = 'origin is where the pages are, such as "https://shop.example"'
            raise ConfigurationError(msg)
        for origin in origins:
            _check_origin(rp_id, origin)
        self.id = rp_id
        self._origins = list(origins)
        self._name = name

    def creation_options(
        self, challenge: bytes, handle: bytes, label: str, known: Sequence[Passkey], discoverable: Discoverable
    ) -> dict[str, Any]:
        """Return the options of ``navigator.credentials.create`` for a user with these ``known`` passkeys."""
        options = webauthn.generate_registration_options(
            rp_id=self.id,
            rp_name=self._name,
            user_id=handle,
            user_name=label,
            user_display_name=label,
            challenge=challenge,
            timeout=LIFETIME_SECONDS * 1000,
            authenticator_selection=structs.AuthenticatorSelectionCriteria(
                resident_key=structs.ResidentKeyRequirement(discoverable),
                user_verification=structs.UserVerificationRequirement.PREFERRED,
            ),
            exclude_credentials=[_descriptor(passkey.credential_id, passkey.transports) for passkey in known],
            supported_pub_key_algs=_ALGORITHMS,
        )
        return _as_json(webauthn.options_to_json(options))

    def request_options(
        self, challenge: bytes, allowed: Sequence[tuple[bytes, Sequence[str]]], verification: Verification
    ) -> dict[str, Any]:
        """Return the options of ``navigator.credentials.get``; ``allowed`` are ids with their transports."""
        options = webauthn.generate_authentication_options(
            rp_id=self.id,
            challenge=challenge,
            timeout=LIFETIME_SECONDS * 1000,
            allow_credentials=[_descriptor(credential_id, transports) for credential_id, transports in allowed],
            user_verification=structs.UserVerificationRequirement(verification),
        )
        return _as_json(webauthn.options_to_json(options))

    def registered(self, presented: Presented, handle: bytes) -> Passkey | None:
        """Return the new passkey of a registration; ``None`` where it is not valid. Any attestation is ignored."""
        try:
            verified = webauthn.verify_registration_response(
                credential=presented.credential,
                expected_challenge=presented.challenge,
                expected_rp_id=self.id,
                expected_origin=self._origins,
                supported_pub_key_algs=_ALGORITHMS,
            )
        except Exception:  # noqa: BLE001 - whatever the library raises about what a client sent
            return None
        if verified.credential_id != presented.credential_id:
            return None
        return Passkey(
            credential_id=verified.credential_id,
            public_key=verified.credential_public_key,
            sign_count=verified.sign_count,
            user_handle=handle,
            backup_eligible=verified.credential_device_type is structs.CredentialDeviceType.MULTI_DEVICE,
            backed_up=verified.credential_backed_up,
            transports=presented.transports,
            aaguid=verified.aaguid,
        )

    def asserted(self, presented: Presented, passkey: Passkey, *, verify_user: bool) -> Asserted | None:
        """Return what the ``passkey`` signed; ``None`` where that is not valid, or ``verify_user`` was left out.

        The counter is for the caller to compare.
        """
        try:
            verified = webauthn.verify_authentication_response(
                credential=presented.credential,
                expected_challenge=presented.challenge,
                expected_rp_id=self.id,
                expected_origin=self._origins,
                credential_public_key=passkey.public_key,
                credential_current_sign_count=0,  # the library raises where a counter goes back
                require_user_verification=verify_user,
            )
        except Exception:  # noqa: BLE001 - whatever the library raises about what a client sent
            return None
        return Asserted(
            verified.new_sign_count,
            verified.credential_device_type is structs.CredentialDeviceType.MULTI_DEVICE,
            verified.credential_backed_up,
            verified.user_verified,
        )


def presented_in(proof: Mapping[str, Any]) -> Presented | None:
    """Return the parts of ``{"credential": {...}}``, the ``toJSON()`` of a credential; ``None`` where it is malformed.

    Client data of a frame on another site's page is malformed: ``crossOrigin`` must not be true, and ``topOrigin`` must
    not be there (WebAuthn 5.8.1).
    """
    credential = proof.get("credential")
    response = credential.get("response") if isinstance(credential, dict) else None
    if not isinstance(credential, dict) or not isinstance(response, dict):
        return None
    try:
        credential_id = _decoded(credential.get("rawId"), _MOST_ID)
        client_data = decode_object(_decoded(response.get("clientDataJSON"), _MOST_CLIENT_DATA))
        challenge = _decoded(client_data.get("challenge"), _MOST_ID)
        # Some security keys send an empty handle for a passkey that is not discoverable.
        handle = response.get("userHandle") or None
        user_handle = None if handle is None else _decoded(handle, _MOST_HANDLE)
    except MalformedToken:
        return None
    if client_data.get("crossOrigin", False) is not False or "topOrigin" in client_data:
        return None
    named = response.get("transports")
    texts = [value for value in named if isinstance(value, str)] if isinstance(named, list) else []
    transports = tuple(dict.fromkeys(value for value in texts if value in _TRANSPORTS))
    return Presented(credential, credential_id, challenge, user_handle, transports)


def _decoded(text: object, most: int) -> bytes:
    if not isinstance(text, str) or not text.isascii() or not 0 < len(text) <= most:
        raise MalformedToken("base64url")
    return decode_base64url(text.encode("ascii"))


def _descriptor(credential_id: bytes, transports: Sequence[str]) -> structs.PublicKeyCredentialDescriptor:
    known = [structs.AuthenticatorTransport(name) for name in transports if name in _TRANSPORTS]
    return structs.PublicKeyCredentialDescriptor(id=credential_id, transports=known or None)


def _as_json(options: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(options)
    return value


def _check_id(rp_id: str) -> None:
    try:
        ip_address(rp_id)
    except ValueError:
        return
    msg = f'rp_id is a host name, and a browser has no passkeys for {rp_id!r}: use "localhost" to develop'
    raise ConfigurationError(msg)


def _check_origin(rp_id: str, origin: str) -> None:
    if origin.startswith(_ANDROID):
        return
    parts = urlsplit(origin)
    host = parts.hostname or ""
    is_secure = parts.scheme == "https" or (parts.scheme == "http" and host == "localhost")
    port = f":{parts.port}" if parts.port else ""
    if not is_secure or origin != f"{parts.scheme}://{host}{port}":
        msg = f'{origin!r} is not the origin of a page with passkeys: write "https://shop.example", without a path'
        raise ConfigurationError(msg)
    if host != rp_id and not host.endswith(f".{rp_id}"):
        msg = f"rp_id is the host of the pages or a parent of it, which {rp_id!r} is not for {origin!r}"
        raise ConfigurationError(msg)
