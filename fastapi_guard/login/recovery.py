"""Recovery codes: printed once, each valid once, for a user who lost every other factor."""

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, shown
from fastapi_guard.login.enrolled import EnrolledFactor
from fastapi_guard.login.factor import Context, Enrolment, Proof, Strength
from fastapi_guard.login.users import User
from fastapi_guard.stores.values import RecordForm

# Crockford's base32: no letter that is read for another one. 25 characters are 125 random bits.
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_CHARACTERS: Final = 25
_GROUP: Final = 5
_CONFUSED: Final = str.maketrans("oil", "011", " -\t\r\n")
_LONGEST: Final = 128
_ATTEMPTS: Final = 10
_MOST: Final = 50


@dataclass(frozen=True, slots=True)
class _Left:
    """The ``data`` of recovery codes: the hashes of those that were not used."""

    codes: list[str]


_LEFT: Final = RecordForm(_Left, "recovery codes")


class RecoveryCodes:
    """Codes of 125 random bits, stored as hashes. Enrolling again replaces all that are left."""

    name: str = "recovery"
    methods: tuple[str, ...] = ("recovery",)
    strength: Strength = Strength.RECOVERY

    def __init__(self, *, count: int = 10) -> None:
        """Make ``count`` codes at an enrolment.

        Raises:
            ConfigurationError: ``count`` is not from 1 to 50.
        """
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST:
            msg = f"count is a number of recovery codes from 1 to {_MOST}, not {shown(count)}"
            raise ConfigurationError(msg)
        self._count = count

    def usable(self, user: User, enrolled: Sequence[EnrolledFactor]) -> bool:  # noqa: ARG002 - the Protocol's
        """Return whether a code is left."""
        return any(_hashes(factor) for factor in enrolled)

    def describe(self, enrolled: EnrolledFactor) -> Mapping[str, Any]:
        """Return how many codes are left."""
        return {"remaining": len(_hashes(enrolled))}

    async def enrol(
        self,
        context: Context,
        draft: EnrolledFactor,
        details: Mapping[str, Any],  # noqa: ARG002 - the Protocol's
    ) -> Enrolment | None:
        """Return new codes, the only time that they are shown; those of before are invalid once it is stored."""
        codes = [_new_code() for _ in range(self._count)]
        factor = context.enrolled[0] if context.enrolled else draft
        hashes = [_hash(factor.id, _plain(code)) for code in codes]
        return Enrolment(factor=_with(factor, hashes), shown={"codes": codes}, is_complete=True)

    async def confirm(
        self,
        context: Context,  # noqa: ARG002 - the Protocol's
        draft: EnrolledFactor,  # noqa: ARG002 - the Protocol's
        proof: Mapping[str, Any],  # noqa: ARG002 - the Protocol's
    ) -> EnrolledFactor | None:
        """Return ``None``: recovery codes are enrolled without being confirmed."""
        return None

    async def challenge(self, context: Context) -> Mapping[str, Any]:  # noqa: ARG002 - the Protocol's
        """Return nothing: the user has the codes."""
        return {}

    async def verify(self, context: Context, proof: Mapping[str, Any]) -> Proof | None:
        """Spend the code in ``{"code": "..."}``, in whatever case and grouping it was typed.

        Raises:
            ServiceUnavailable: The storage cannot be reached, or other codes were used again and again meanwhile.
        """
        code = _plain(proof.get("code"))
        enrolled = list(context.enrolled)
        for _ in range(_ATTEMPTS):
            found = [(factor, _without(factor, code)) for factor in enrolled]
            hits = [(factor, left) for factor, left in found if left is not None]
            if not hits:
                return None
            factor, left = hits[0]
            spent = replace(_with(factor, left), used_at=context.now)
            if await context.records.replace(factor, spent):
                return Proof(methods=self.methods, factor=spent)
            # Another code was used at the same time, or this one.
            current = await context.records.get(factor.id)
            enrolled = [] if current is None or current.subject != factor.subject else [current]
        raise ServiceUnavailable(reason="contended")


def _new_code() -> str:
    code = "".join(secrets.choice(_ALPHABET) for _ in range(_CHARACTERS))
    return "-".join(code[start : start + _GROUP] for start in range(0, _CHARACTERS, _GROUP))


def _plain(code: object) -> str:
    text = code if isinstance(code, str) and len(code) <= _LONGEST else ""
    return text.lower().translate(_CONFUSED)


def _hash(factor_id: str, code: str) -> str:
    return sha256(f"{factor_id}:{code}".encode("utf-8", "surrogatepass")).hexdigest()


def _hashes(factor: EnrolledFactor) -> list[str]:
    return _LEFT.read(factor.data).codes


def _with(factor: EnrolledFactor, hashes: Sequence[str]) -> EnrolledFactor:
    return replace(factor, data=_LEFT.encoded(_Left(list(hashes))).decode("ascii"))


def _without(factor: EnrolledFactor, code: str) -> list[str] | None:
    presented = _hash(factor.id, code)
    hashes = _hashes(factor)
    left = [known for known in hashes if not hmac.compare_digest(known, presented)]
    return left if len(left) < len(hashes) else None
