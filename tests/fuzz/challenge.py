"""A strict reader of challenges, by the grammars of RFC 9110 11 and RFC 6750 3, without a line of the package."""

import re

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
PARAMETER = rf'{TOKEN}="[\x20-\x21\x23-\x5b\x5d-\x7e]*"'
CHALLENGE = rf"({TOKEN}) ({PARAMETER}(?:, {PARAMETER})*)"
# Every challenge of this package has parameters, so that what follows a comma is a parameter or a whole challenge.
FIELD = re.compile(rf"{CHALLENGE}(?:, {CHALLENGE})*")


def challenges_of(field: str) -> list[tuple[str, dict[str, str]]]:
    """Return the challenges in a WWW-Authenticate field: scheme and parameters, each of which is there once."""
    assert FIELD.fullmatch(field), field
    found: list[tuple[str, dict[str, str]]] = []
    for scheme, name, value in re.findall(rf'(?:({TOKEN}) )?({TOKEN})="([^"]*)"', field):
        if scheme:
            found.append((scheme, {}))
        assert name not in found[-1][1], field
        found[-1][1][name] = value
    return found
