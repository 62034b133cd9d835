"""Passkeys: WebAuthn credentials as the only factor or as the second one.

Decides what a login accepts: whose challenge it is, counters, backup eligibility, user verification. Needs the extra
``passkeys``.
"""

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, Literal

from pydantic import AnyUrl

from fastapi_guard.events import Event, publish
from fastapi_guard.exceptions import ConfigurationError, Forbidden, ServiceUnavailable, shown
from fastapi_guard.login.enrolled import EnrolledFactor
from fastapi_guard.login.factor import Context, Enrolment, FirstContext, Proof, Strength, Surroundings
from fastapi_guard.login.keyring import Keyring, Secret
from fastapi_guard.login.passkey import KIND, Passkey, factor_id
from fastapi_guard.login.relying_party import (
    LIFETIME_SECONDS,
    Asserted,
    Discoverable,
    Presented,
    RelyingParty,
    presented_in,
)
from fastapi_guard.login.users import User
from fastapi_guard.stores.arguments import check_flags, check_texts, items_of, texts_of
from fastapi_guard.stores.hidden import plain
from fastapi_guard.stores.protocol import Record, take
from fastapi_guard.stores.values import RecordForm

Purpose = Literal["enrol", "second", "first"]

_CHALLENGE_BYTES: Final = 32
_HANDLE_BYTES: Final = 32
_LONGEST_LABEL: Final = 64  # authenticators may cut longer names (WebAuthn 5.4.1)
_ATTEMPTS: Final = 5
_ORIGINS: Final = 'such as ["https://shop.example"]'
# The lengths of credential ids in use: of password managers, platforms and security keys.
_DECOY_LENGTHS: Final = (16, 20, 32, 32, 48, 64)


@dataclass(frozen=True, slots=True)
class _Challenge:
    """The owner of a challenge.

    Attributes:
        subject: Whose passkey may sign it; ``None`` where any may, or for a name without a user.
        is_named: Whether the client named a user.
    """

    subject: str | None = None
    is_named: bool = True


@dataclass(frozen=True, slots=True)
class _Draft:
    """The ``data`` of a passkey that is not confirmed yet."""

    user_handle: bytes


_CHALLENGE: Final = RecordForm(_Challenge, "a challenge of a passkey")
_DRAFT: Final = RecordForm(_Draft, "an enrolment of a passkey")


class Passkeys:
    """Passkeys and security keys (WebAuthn level 3)."""

    name: str = KIND
    methods: tuple[str, ...] = ("swk", "hwk")
    strength: Strength = Strength.KEY

    def __init__(
        self,
        *,
        rp_id: str,
        origin: str | AnyUrl | Collection[str | AnyUrl],
        rp_name: str | None = None,
        first: bool = True,
        discoverable: Discoverable = "preferred",
        decoy_key: Secret | Mapping[str, Secret] | None = None,
        refuse_counter_regression: bool = False,
    ) -> None:
        """Accept passkeys of ``rp_id`` on pages of ``origin``.

        Args:
            rp_id: The host that passkeys belong to, such as ``"shop.example"``: that of the pages, or a parent of it.
                Changing it makes every enrolled passkey useless.
            origin: Where the pages are, such as ``"https://shop.example"``; several for several hosts. Compared
                exactly.
            rp_name: The name of the service, as authenticators may show it; by default ``rp_id``.
            first: Whether a passkey can be the only factor of a login. It needs user verification then.
            discoverable: Whether authenticators store the passkey so that it is found without a username.
            decoy_key: At least 32 random bytes. With it a client may name a user and receives the ids of the user's
                passkeys; for an unknown user they are made up, the same each time. Without it a name is ignored, since
                the ids would disclose who has an account.
            refuse_counter_regression: Refuse a passkey whose counter goes back, which may be a copy. By default that
                is an event.

        Raises:
            ConfigurationError: An origin is not one of a browser, or ``rp_id`` is not its host or a parent of it.
        """
        check_texts(rp_id=rp_id, rp_name=rp_name)
        check_flags(first=first, refuse_counter_regression=refuse_counter_regression)
        listed = [origin] if isinstance(origin, str | AnyUrl) else origin
        origins = texts_of("origin", plain([*items_of("origin", listed, _ORIGINS)]), _ORIGINS)
        if discoverable not in ("required", "preferred", "discouraged"):
            msg = f'discoverable is "required", "preferred" or "discouraged", not {shown(discoverable)}'
            raise ConfigurationError(msg)
        self._party = RelyingParty(rp_id, origins, rp_name or rp_id)
        self._first = first
        self._discoverable: Discoverable = discoverable
        self._decoys = None if decoy_key is None else Keyring(decoy_key, "passkey decoys")
        self._refuses_regression = refuse_counter_regression

    def usable(self, user: User, enrolled: Sequence[EnrolledFactor]) -> bool:  # noqa: ARG002 - the Protocol's
        """Return whether there is a passkey."""
        return bool(enrolled)

    def begins(self, user: User, enrolled: Sequence[EnrolledFactor]) -> bool:  # noqa: ARG002 - the Protocol's
        """Return whether there is a passkey that can be the only factor, and that a browser finds without its id."""
        is_found = self._discoverable != "discouraged" or self._decoys is not None
        return self._first and is_found and bool(enrolled)

    def describe(self, enrolled: EnrolledFactor) -> Mapping[str, Any]:
        """Return whether the passkey is synchronised, and the model of its authenticator."""
        passkey = Passkey.of(enrolled)
        return {"synchronised": passkey.backup_eligible, "aaguid": passkey.aaguid}

    async def enrol(
        self,
        context: Context,
        draft: EnrolledFactor,
        details: Mapping[str, Any],  # noqa: ARG002 - the Protocol's
    ) -> Enrolment | None:
        """Return ``publicKey``, the options of ``navigator.credentials.create``.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        known = [Passkey.of(factor) for factor in context.enrolled]
        # One handle a user: with another one an authenticator would list the user twice.
        handle = known[0].user_handle if known else secrets.token_bytes(_HANDLE_BYTES)
        challenge = await self._new_challenge(context, "enrol", _Challenge(context.user.subject_id))
        options = self._party.creation_options(challenge, handle, _label(context.user), known, self._discoverable)
        begun = replace(draft, data=_DRAFT.encoded(_Draft(handle)).decode("ascii"))
        return Enrolment(factor=begun, shown={"publicKey": options})

    async def confirm(self, context: Context, draft: EnrolledFactor, proof: Mapping[str, Any]) -> EnrolledFactor | None:
        """Return the factor for the new passkey in ``{"credential": {...}}``, the ``toJSON()`` of the credential.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        presented = presented_in(proof)
        made_for = None if presented is None else await self._spent(context, presented, "enrol")
        if presented is None or made_for is None or made_for.subject != context.user.subject_id:
            return None
        passkey = self._party.registered(presented, _DRAFT.read(draft.data).user_handle)
        return None if passkey is None else passkey.stored_in(draft)

    async def challenge(self, context: Context) -> Mapping[str, Any]:
        """Return ``publicKey``, the options of ``navigator.credentials.get`` for the user's passkeys.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        passkeys = [Passkey.of(factor) for factor in context.enrolled]
        allowed = [(passkey.credential_id, passkey.transports) for passkey in passkeys]
        challenge = await self._new_challenge(context, "second", _Challenge(context.user.subject_id))
        return {"publicKey": self._party.request_options(challenge, allowed, "preferred")}

    async def verify(self, context: Context, proof: Mapping[str, Any]) -> Proof | None:
        """Verify ``{"credential": {...}}``, the ``toJSON()`` of an assertion, against the user's passkeys.

        Raises:
            ServiceUnavailable: The store cannot be reached.
        """
        presented = presented_in(proof)
        made_for = None if presented is None else await self._spent(context, presented, "second")
        if presented is None or made_for is None or made_for.subject != context.user.subject_id:
            return None
        known = {factor.id: factor for factor in context.enrolled}
        factor = known.get(factor_id(presented.credential_id))
        return None if factor is None else await self._verified(context, factor, presented, verify_user=False)

    async def offer(self, context: FirstContext) -> Mapping[str, Any]:
        """Return ``publicKey``, the options of ``navigator.credentials.get``, also for conditional mediation.

        Raises:
            Forbidden: Passkeys are a second factor alone.
            ServiceUnavailable: The users or the store cannot be reached.
        """
        self._check_first()
        ids: Sequence[bytes] = ()
        made_for = _Challenge(is_named=False)
        if context.login is not None and self._decoys is not None:
            subject, ids = await self._ids_of(context, context.login, self._decoys)
            made_for = _Challenge(subject)
        challenge = await self._new_challenge(context, "first", made_for)
        # Without transports: those of a made-up id would have to be made up too.
        allowed = [(credential_id, ()) for credential_id in ids]
        return {"publicKey": self._party.request_options(challenge, allowed, "required")}

    async def identify(self, context: FirstContext, proof: Mapping[str, Any]) -> tuple[str, Proof] | None:
        """Return the subject whose passkey signed, with the user verified; see ``verify``.

        Raises:
            Forbidden: Passkeys are a second factor alone.
            ServiceUnavailable: The store cannot be reached.
        """
        self._check_first()
        presented = presented_in(proof)
        made_for = None if presented is None else await self._spent(context, presented, "first")
        if presented is None or made_for is None:
            return None
        factor = await context.records.get(factor_id(presented.credential_id))
        if factor is None or factor.kind != self.name:
            return None
        # Without a name the user handle identifies the user, so it has to be there (WebAuthn 7.2, step 6).
        is_meant = made_for.subject == factor.subject if made_for.is_named else presented.user_handle is not None
        proven = await self._verified(context, factor, presented, verify_user=True) if is_meant else None
        return None if proven is None else (factor.subject, proven)

    async def _verified(
        self, context: Surroundings, factor: EnrolledFactor, presented: Presented, *, verify_user: bool
    ) -> Proof | None:
        passkey = Passkey.of(factor)
        handle = presented.user_handle
        if handle is not None and not secrets.compare_digest(handle, passkey.user_handle):
            return None
        asserted = self._party.asserted(presented, passkey, verify_user=verify_user)
        stored = None if asserted is None else await self._seen(context, factor, asserted)
        if asserted is None or stored is None:
            return None
        methods = (*passkey.methods, "user", "mfa") if asserted.user_verified else passkey.methods
        return Proof(methods=methods, factor=stored)

    async def _seen(self, context: Surroundings, factor: EnrolledFactor, asserted: Asserted) -> EnrolledFactor | None:
        current: EnrolledFactor | None = factor
        for _ in range(_ATTEMPTS):
            if current is None or current.subject != factor.subject:
                return None  # removed in the meantime
            passkey = Passkey.of(current)
            if asserted.backup_eligible != passkey.backup_eligible:
                return None
            highest = max(asserted.sign_count, passkey.sign_count)
            if highest and asserted.sign_count <= passkey.sign_count:
                event = Event("passkey_counter", self.name, reason="counter_went_back", subject=factor.subject)
                publish(event, context.on_event)
                if self._refuses_regression:
                    return None
            seen = replace(passkey, sign_count=highest, backed_up=asserted.backed_up)
            if seen == passkey:
                return current
            stored = replace(seen.stored_in(current), used_at=context.now)
            if await context.records.replace(current, stored):
                return stored
            current = await context.records.get(factor.id)
        raise ServiceUnavailable(reason="contended")

    async def _new_challenge(self, context: Surroundings, purpose: Purpose, made_for: _Challenge) -> bytes:
        challenge = secrets.token_bytes(_CHALLENGE_BYTES)
        key = _key(challenge, purpose, context)
        await context.store.add(Record(key, _CHALLENGE.encoded(made_for), None, context.now + LIFETIME_SECONDS))
        return challenge

    async def _spent(self, context: Surroundings, presented: Presented, purpose: Purpose) -> _Challenge | None:
        # Of two at the same time one goes on, and the challenge is used up even if the proof is wrong.
        return _CHALLENGE.read_or_none(await take(context.store, _key(presented.challenge, purpose, context)))

    async def _ids_of(self, context: FirstContext, login: str, decoys: Keyring) -> tuple[str | None, Sequence[bytes]]:
        user = await context.find_user(login)
        # The same look-up for an unknown user, which finds nothing.
        factors = await context.records.of(f"unknown:{login}" if user is None else user.subject_id)
        own = [Passkey.of(factor).credential_id for factor in factors if factor.kind == self.name]
        made_up = _made_up_ids(decoys, login)
        return (None, made_up) if user is None or not own else (user.subject_id, own)

    def _check_first(self) -> None:
        if not self._first:
            raise Forbidden(reason="not_a_first_factor")


def _key(challenge: bytes, purpose: Purpose, context: Surroundings) -> str:
    # For another purpose, Login or browser it is another key: there it neither counts nor is used up.
    named = json.dumps([challenge.hex(), purpose, context.name, context.binding]).encode("ascii")
    return f"challenge:{sha256(named).hexdigest()}"


def _made_up_ids(decoys: Keyring, login: str) -> list[bytes]:
    seed = decoys.derive("shape", login)
    count = 1 + (seed[0] < 64) + (seed[0] < 16)
    ids = []
    for number in range(count):
        length = _DECOY_LENGTHS[seed[1 + number] % len(_DECOY_LENGTHS)]
        raw = decoys.derive("id", login, str(number)) + decoys.derive("longer", login, str(number))
        ids.append(raw[:length])
    return ids


def _label(user: User) -> str:
    return user.login_name[:_LONGEST_LABEL].encode("utf-8", "replace").decode("utf-8")
