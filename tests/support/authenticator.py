"""A WebAuthn authenticator in software, which also misbehaves as a test wants."""

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def b64url(raw: bytes) -> str:
    """Return base64url without padding."""
    return urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def from_b64url(text: str) -> bytes:
    """Return what base64url without padding stands for."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def new_key(algorithm: int) -> PrivateKey:
    """Return a key of a COSE algorithm: -7, -8 or -257."""
    if algorithm == -7:
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == -8:
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


@dataclass
class Authenticator:
    """One credential on one device.

    Attributes:
        origin: The origin of the page.
        rp_id: The relying party that the browser allows.
        algorithm: The COSE algorithm of its key.
        counter: The signature counter; it counts where it is not 0.
        flags: Those of the authenticator data.
        client_data: Members that replace or add to the client data.
        user_handle: The handle that an assertion has; the one of the registration by default.
    """

    origin: str = "https://shop.example"
    rp_id: str = "shop.example"
    algorithm: int = -7
    counter: int = 0
    flags: int = UP | UV
    client_data: dict[str, Any] = field(default_factory=dict)
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    user_handle: bytes | None = None
    key: Any = None

    def create(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the credential of `navigator.credentials.create`."""
        self.key = self.key or new_key(self.algorithm)
        self.user_handle = from_b64url(options["user"]["id"])
        attested = bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id
        auth_data = self._auth_data(AT) + attested + cbor2.dumps(self._cose())
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": auth_data})
        client_data = self._client_data("webauthn.create", options["challenge"])
        response = {
            "clientDataJSON": b64url(client_data),
            "attestationObject": b64url(attestation),
            "transports": ["internal", "hybrid", "telepathy"],
        }
        return self._credential(response)

    def get(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the credential of `navigator.credentials.get`."""
        self.counter += bool(self.counter)
        auth_data = self._auth_data()
        client_data = self._client_data("webauthn.get", options["challenge"])
        signature = self._signature(auth_data + hashlib.sha256(client_data).digest())
        response = {
            "clientDataJSON": b64url(client_data),
            "authenticatorData": b64url(auth_data),
            "signature": b64url(signature),
        }
        if self.user_handle is not None:
            response["userHandle"] = b64url(self.user_handle)
        return self._credential(response)

    def _credential(self, response: dict[str, Any]) -> dict[str, Any]:
        text = b64url(self.credential_id)
        return {"id": text, "rawId": text, "type": "public-key", "response": response, "clientExtensionResults": {}}

    def _client_data(self, kind: str, challenge: str) -> bytes:
        members = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps({**members, **self.client_data}).encode()

    def _auth_data(self, more: int = 0) -> bytes:
        flags = bytes([self.flags | more])
        return hashlib.sha256(self.rp_id.encode()).digest() + flags + self.counter.to_bytes(4, "big")

    def _cose(self) -> dict[int, Any]:
        public = self.key.public_key()
        if self.algorithm == -7:
            numbers = public.public_numbers()
            x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
            return {1: 2, 3: -7, -1: 1, -2: x, -3: y}
        if self.algorithm == -8:
            return {1: 1, 3: -8, -1: 6, -2: public.public_bytes_raw()}
        numbers = public.public_numbers()
        return {1: 3, 3: -257, -1: numbers.n.to_bytes(256, "big"), -2: numbers.e.to_bytes(3, "big")}

    def _signature(self, data: bytes) -> bytes:
        if self.algorithm == -7:
            signature: bytes = self.key.sign(data, ec.ECDSA(SHA256()))
        elif self.algorithm == -8:
            signature = self.key.sign(data)
        else:
            signature = self.key.sign(data, padding.PKCS1v15(), SHA256())
        return signature
