"""Usernames and addresses: one normalisation for what is counted, looked up and unique."""

import unicodedata
from typing import Final

# RFC 5321 4.5.3.1.3: a path of 256 octets, with its angle brackets.
MAX_ADDRESS_CHARACTERS: Final = 254
MAX_USERNAME_CHARACTERS: Final = 150
_MAX_CHARACTERS: Final = 1024
# Control characters, format characters such as zero-width spaces, surrogates, private use, unassigned, separators.
_UNFIT: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})
_SPECIAL: Final = frozenset('<>()[]\\,;:"')


def normalized(text: str) -> str:
    """Return the form of a username or an address under which it is counted, looked up and unique.

    Without the white space around it, in Unicode's form NFKC, without case, and cut to 1024 characters: no account has
    a name of a quarter of that, and to normalise 64 KiB takes a tenth of a second. Normalising twice changes nothing.
    """
    text = text.strip()[:_MAX_CHARACTERS]
    if text.isascii():
        return text.strip().lower()
    # Unicode 3.13, D145: case folding can undo a normalisation, and the other way round.
    decomposed = unicodedata.normalize("NFD", text).casefold()
    folded = unicodedata.normalize("NFKC", decomposed).casefold()
    return unicodedata.normalize("NFKC", folded)[:_MAX_CHARACTERS].strip()


def checked_username(text: str) -> str:
    """Return a new username without the white space around it.

    Raises:
        ValueError: It is empty, longer than 150 characters, or has an ``@``, white space or a character that is not
            visible. The text may be shown to the user.
    """
    username = text.strip()
    if not username or max(len(username), len(normalized(username))) > MAX_USERNAME_CHARACTERS:
        msg = f"a username has 1 to {MAX_USERNAME_CHARACTERS} characters"
        raise ValueError(msg)
    if "@" in normalized(username):
        msg = "a username has no @: an e-mail address is not a username"
        raise ValueError(msg)
    _check_characters(username, "a username")
    return username


def checked_address(text: str) -> str:
    """Return a new e-mail address without the white space around it, otherwise as it was typed.

    Raises:
        ValueError: It is longer than 254 characters, or cannot be an address. The text may be shown to the user.
    """
    address = text.strip()
    local, _, domain = normalized(address).rpartition("@")
    is_long = max(len(address), len(normalized(address))) > MAX_ADDRESS_CHARACTERS
    if is_long or not local or not domain or "@" in local or address.count("@") != 1 or _SPECIAL & {*address}:
        msg = "this is not an e-mail address"
        raise ValueError(msg)
    _check_characters(address, "an e-mail address")
    return address


def _check_characters(text: str, kind: str) -> None:
    if any(unicodedata.category(character) in _UNFIT for character in text):
        msg = f"{kind} has no white space and no invisible characters"
        raise ValueError(msg)
