"""Kinds of records: the prefixes of their keys, and the changes that workers with a cache have to learn of.

Several parts of the package read what another part writes, such as the revocation of a subject, which ends sessions.
"""

from typing import Final

SESSION: Final = "session:"
REPLACED: Final = "replaced:"
FAMILY: Final = "refresh:"
PENDING: Final = "pending:"
DEVICE: Final = "device:"
REVOKED: Final = "revoked:"
TICKET: Final = "ticket:"
SIGN_IN: Final = "sign-in:"

_CACHED: Final = (SESSION, REVOKED)


def is_announced(key: str, *, added: bool = False) -> bool:
    """Return whether a change of the record under ``key`` is announced to the caches of other processes.

    A session that is added is not: its absence is never cached. Refresh tokens, tickets and proofs are not cached.

    Args:
        key: Of the record.
        added: Whether the record is a new one, not replaced or deleted.
    """
    return key.startswith(REVOKED if added else _CACHED)
