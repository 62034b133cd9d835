"""The words that people search for lead to the page about them."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

DOCS = Path(__file__).parent.parent / "docs"

# A search shows a page first where the words are in its title, its headings or its first paragraph.
PAGES = {
    "totp": "how-to/two-factor.md",
    "2fa": "how-to/two-factor.md",
    "mfa": "how-to/two-factor.md",
    "csrf": "how-to/cookies.md",
    "sso": "how-to/sign-in-with-a-provider.md",
    "single sign-on": "how-to/sign-in-with-a-provider.md",
    "social login": "how-to/sign-in-with-a-provider.md",
    "magic link": "how-to/magic-links.md",
    "multi-tenancy": "how-to/roles-and-tenants.md",
    "rate limit": "how-to/throttling.md",
    "service account": "how-to/service-accounts.md",
    "impersonation": "explanation/goals.md",
    "refresh cookie": "how-to/spa.md",
    "permission": "how-to/custom-scopes.md",
    "rbac": "how-to/roles-and-tenants.md",
    "passkey": "how-to/passkeys.md",
    "upgrade": "how-to/upgrade-from-0.1.md",
    "brute force": "how-to/throttling.md",
    "denylist": "how-to/revocation.md",
    "blacklist": "how-to/revocation.md",
    "ip allowlist": "how-to/limit-api-keys.md",
    "machine to machine": "how-to/service-accounts.md",
    "personal access token": "how-to/manage-api-keys.md",
    "backup codes": "how-to/two-factor.md",
    "sign up": "how-to/accounts.md",
}


def prominent(page: str) -> str:
    """Return the title, the first paragraph, the headings and the first cells of tables of a page, in lower case."""
    text = (DOCS / page).read_text(encoding="utf-8")
    introduction = text.partition("```")[0].partition("\n## ")[0]
    rest = re.findall(r"^(?:#+ .*|\| [^|]+)", text, flags=re.MULTILINE)
    return " ".join([introduction, *rest]).lower()


@pytest.mark.parametrize("words", PAGES)
def test_words_that_people_search_for(words: str) -> None:
    """The page about it has the words where a search and a reader see them first, and is in the navigation."""
    page = PAGES[words]
    assert re.search(rf"\b{re.escape(words)}", prominent(page)), page
    assert f"- {page}\n" in (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")


def test_a_word_in_the_middle_of_a_page() -> None:
    """A word that is only in a paragraph further below is not enough."""
    assert "autogenerate" not in prominent("how-to/upgrade-from-0.1.md")
    assert "code" in prominent("how-to/upgrade-from-0.1.md")
