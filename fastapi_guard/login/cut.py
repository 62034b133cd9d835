"""Revocations as they are stored, and which tokens the revocation of a subject covers.

The clocks of the hosts that issue tokens differ from that of the host that revokes. A token that TokenPairs issues soon
after a revocation has its number, so that clocks do not matter; one without a number is revoked up to the skew that is
allowed for.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from fastapi_guard.stores.protocol import Record
from fastapi_guard.stores.values import check_moments, check_texts, decoded

#: In the place of an issuer: any of them.
ANY: Final = "*"
#: The claim of a token that was issued soon after its subject was revoked.
REVOCATION_NUMBER: Final = "revocation_number"
# How far the clock that dated a token with a number may be behind the clock that dated the revocation.
_BEHIND_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Cut:
    """The revocation of a subject: tokens up to ``second`` are revoked, and tokens with a lower number.

    Attributes:
        second: In seconds since the epoch.
        number: How many times the subject was revoked.
        keep: The session whose tokens are revoked only as far as ``kept_second`` and ``kept_number``.
        kept_second: Seconds since the epoch.
        kept_number: A number.
        until: When it can be forgotten, in seconds since the epoch.
    """

    second: int
    number: int
    keep: str | None = None
    kept_second: int = -1
    kept_number: int = 0
    until: float | None = None

    def covers(self, claims: Mapping[str, Any], skew_seconds: float) -> bool:
        """Return whether the token with these claims is revoked.

        Args:
            claims: With ``iat``, and perhaps a number.
            skew_seconds: How far the clock that dated the token may be ahead of the one that dated the revocation.
        """
        kept = self.keep is not None and claims.get("sid") == self.keep
        second, number = (self.kept_second, self.kept_number) if kept else (self.second, self.number)
        own, issued_at = claims.get(REVOCATION_NUMBER), claims.get("iat")
        if number == 0:
            return False
        if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
            return True
        if type(own) is int and issued_at > second - _BEHIND_SECONDS:
            return own < number
        return issued_at < second + 1 + skew_seconds

    def again(self, second: int, number: int, keep: str | None, until: float | None) -> "Cut":
        """Return the revocation that follows this one."""
        # What was revoked stays so: a session is kept from this revocation, not from an earlier one.
        same = keep is not None and keep == self.keep
        return Cut(
            max(second, self.second),
            number,
            keep,
            self.kept_second if same else self.second,
            self.kept_number if same else self.number,
            until,
        )


def cuts_of(record: Record) -> dict[str, Cut]:
    """Return the revocations in a record, by the issuers that they count for.

    Raises:
        ServiceUnavailable: The record cannot be read.
    """
    return decoded(record.value, _cuts, "a revocation")


def moments_of(record: Record) -> dict[str, float | None]:
    """Return until when a token or a session is revoked, ``None`` indefinitely, by the issuers that it counts for.

    Raises:
        ServiceUnavailable: The record cannot be read.
    """
    return decoded(record.value, _moments, "a revocation")


def named(issuer: str | None) -> str:
    """Return the name of an issuer in a record, apart from the mark of any issuer."""
    return f"={issuer or ''}"


def encoded(cuts: Mapping[str, Cut]) -> bytes:
    """Return the value of a record of these revocations."""
    return json.dumps({name: asdict(cut) for name, cut in cuts.items()}, separators=(",", ":")).encode("ascii")


def _cuts(members: dict[str, Any]) -> dict[str, Cut]:
    cuts = {name: Cut(**cut) for name, cut in members.items()}
    _check_issuers(cuts)
    for cut in cuts.values():
        check_texts(cut.keep)
        check_moments(cut.second, cut.number, cut.kept_second, cut.kept_number)
        _moments({ANY: cut.until})
        if cut.number < 1:
            msg = "a revocation without a number covers no token"
            raise ValueError(msg)
    return cuts


def _moments(members: dict[str, Any]) -> dict[str, float | None]:
    _check_issuers(members)
    check_moments(*(moment for moment in members.values() if moment is not None))
    return members


def _check_issuers(names: Collection[str]) -> None:
    if not names or not all(name == ANY or name.startswith("=") for name in names):
        msg = "a revocation of no issuer covers no token"
        raise ValueError(msg)
