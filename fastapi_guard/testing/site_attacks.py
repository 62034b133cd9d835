"""site_attacks: what no application may allow at its logins, messages, providers, tokens, connections and mounts.

Each attack begins with what has to work, so that an application that refuses everything does not pass.
"""

from typing import Final

from fastapi_guard.testing import (
    account_attacks,
    connection_attacks,
    factor_attacks,
    login_attacks,
    provider_attacks,
    takeover_attacks,
    token_attacks,
)
from fastapi_guard.testing.site import SiteAttack

_FOUND: Final[list[SiteAttack]] = [
    *login_attacks.FOUND,
    *factor_attacks.FOUND,
    *account_attacks.FOUND,
    *provider_attacks.FOUND,
    *takeover_attacks.FOUND,
    *token_attacks.FOUND,
    *connection_attacks.FOUND,
]


def site_attacks(*kinds: str) -> list[SiteAttack]:
    """Return the attacks of these kinds, by default of all, for ``pytest.mark.parametrize``.

    Args:
        kinds: ``login``, ``factors``, ``resets``, ``mail``, ``account``, ``rights``, ``keys``, ``issuers``,
            ``provider``, ``identities``, ``takeover``, ``tokens``, ``tickets``, ``connections``, ``mounts``, ``batch``,
            ``mcp``.

    Raises:
        ValueError: There is no attack of a kind.
    """
    known = {attack.kind for attack in _FOUND}
    if unknown := sorted(set(kinds) - known):
        msg = f"there are no attacks of the kinds {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        raise ValueError(msg)
    return [attack for attack in _FOUND if not kinds or attack.kind in kinds]
