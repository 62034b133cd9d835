"""The rules for a new password (NIST SP 800-63B-4, 3.1.1.2): its length and a block-list, and nothing else."""

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from fastapi_guard.stores.arguments import check_numbers, check_texts, items_of, sync_function_of

TOO_EASY: Final = "the password is too easy to guess"

_SHORT_PERIOD: Final = 8
_FEW: Final = 5
# Digits and signs before and after a word, which a rule of composition once asked for.
_DECORATION: Final = re.compile(r"^[\d\W_]+|[\d\W_]+$")
_WORD: Final = re.compile(r"[^\W_]{3,}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PasswordPolicy:
    """The rules for a new password. There are no rules of composition.

    Attributes:
        min_characters: 15 where the password is the only factor, 8 beside a second factor.
        max_characters: At least 64, so that pass phrases fit.
        blocked: Passwords that are rejected whatever their case, such as the name of the service. More than 11,000 that
            are common in leaks are rejected anyway, with digits and signs around them too.
    """

    min_characters: int = 15
    max_characters: int = 256
    blocked: Collection[str] = ()

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ConfigurationError: They are below those of NIST, or ``check`` of a subclass is an ``async def``.
        """
        sync_function_of(f"{type(self).__name__}.check", self.check, "of a password", "password", "name")
        check_numbers(8, min_characters=self.min_characters)
        check_numbers(max(64, self.min_characters), max_characters=self.max_characters)
        blocked = items_of("blocked", self.blocked, 'such as ["shop.example"]')
        check_texts(blocked="".join(map(str, blocked)) or None)
        object.__setattr__(self, "blocked", frozenset(map(_folded, blocked)))

    def check(self, password: str, *context: str) -> None:
        """Reject a password that may not be set.

        Args:
            password: As received: it is neither trimmed nor normalised.
            context: Texts that the password must not consist of, such as the user's name and address.

        Raises:
            ValueError: With a text that may be shown to the user.
        """
        if len(password) < self.min_characters:
            msg = f"the password has fewer than {self.min_characters} characters"
            raise ValueError(msg)
        if len(password) > self.max_characters:
            msg = f"the password has more than {self.max_characters} characters"
            raise ValueError(msg)
        folded = _folded(password)
        if self._is_blocked(folded) or _repeats(folded) or _consists_of(folded, map(_folded, context)):
            raise ValueError(TOO_EASY)

    def _is_blocked(self, folded: str) -> bool:
        # A word that is written twice, with digits and signs around it or around each of them.
        texts = [folded, _half(folded)]
        words = [_DECORATION.sub("", text) for text in texts]
        found = {*texts, *words, *map(_half, words)}
        return not found.isdisjoint(self.blocked) or not found.isdisjoint(common_passwords())


@cache
def common_passwords() -> frozenset[str]:
    """Return the passwords of the bundled list, casefolded."""
    lines = (files("fastapi_guard.login") / "common_passwords.txt").read_text("utf-8").splitlines()
    return frozenset(_folded(line) for line in lines if line and not line.startswith("#"))


def _folded(password: str) -> str:
    return unicodedata.normalize("NFKC", password).casefold()


def _half(text: str) -> str:
    half = text[: len(text) // 2]
    return half if half * 2 == text else text


def _repeats(text: str) -> bool:
    # "aaaaaaaaaaaaaaa", "abcabcabcabcabc": found again within itself doubled, after a few characters.
    return (text + text).index(text, 1) <= min(_SHORT_PERIOD, len(text) - 1)


def _consists_of(folded: str, context: Iterable[str]) -> bool:
    # The name itself, or its words with hardly anything else: "bob.the.builder1" for bob.the.builder@example.com.
    for text in context:
        if folded == text:
            return True
        rest = folded
        for word in sorted(_WORD.findall(text), key=len, reverse=True):
            rest = rest.replace(word, "")
        if rest != folded and len(rest) < _FEW:
            return True
    return False
