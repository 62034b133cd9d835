"""Several challenges in one WWW-Authenticate field (RFC 9110 11.6.1)."""

import re
from functools import lru_cache

# An element of the comma-separated list: what stands between commas that no quotation marks enclose.
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
# The first element of a challenge has the name of its scheme in front.
_BEGINNING = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?: +(.*))?", re.DOTALL)
_PARAMETER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*(?!=*$)(.*)", re.DOTALL)

# The parameters of one refusal belong together: all are taken from one challenge, or none.
_OF_A_REFUSAL = frozenset({"error", "error_description", "error_uri", "scope", "max_age", "acr_values"})

_Parameters = dict[str, str]


@lru_cache(maxsize=256)
def merged(*challenges: str) -> str:
    """Return the challenges as the value of one field, those of an equal scheme and realm as one.

    Of several with an error the first counts. A challenge has every parameter once.
    """
    found: dict[tuple[str, str | None], tuple[str, _Parameters]] = {}
    for challenge in challenges:
        for scheme, parameters in _split(challenge):
            _, known = found.setdefault((scheme.lower(), parameters.get("realm")), (scheme, {}))
            settled = "error" in known
            for name, value in parameters.items():
                if name not in known and not (settled and name in _OF_A_REFUSAL):
                    known[name] = value
    return ", ".join(
        " ".join(
            filter(None, (scheme, ", ".join(f"{name}={value}" if name else value for name, value in known.items())))
        )
        for scheme, known in found.values()
    )


def _split(field: str) -> list[tuple[str, _Parameters]]:
    found: list[tuple[str, _Parameters]] = []
    for element in _ELEMENT.findall(field):
        text = element.strip(" \t")
        parameter = _PARAMETER.fullmatch(text)
        if not text:
            continue
        if parameter is None or not found:
            # A name alone, or with its first parameter (or a token68) behind it.
            beginning = _BEGINNING.fullmatch(text)
            if beginning is None:
                continue
            found.append((beginning[1], {}))
            text = (beginning[2] or "").strip(" \t")
            parameter = _PARAMETER.fullmatch(text)
        parameters = found[-1][1]
        if parameter is not None:
            parameters.setdefault(parameter[1].lower(), parameter[2])
        elif text:
            parameters.setdefault("", text)
    return found
