import re
from string import ascii_letters

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard.schemes.challenges import merged

BAD = 'Bearer realm="api", error="invalid_token", error_description="Bad, or worse"'


@pytest.mark.parametrize(
    ("challenges", "field"),
    [
        ([], ""),
        (['Bearer realm="api"'], 'Bearer realm="api"'),
        (['Bearer realm="api"', 'ApiKey realm="api"'], 'Bearer realm="api", ApiKey realm="api"'),
        (['Bearer realm="a"', 'Bearer realm="b"'], 'Bearer realm="a", Bearer realm="b"'),
        (['Bearer realm="api"', BAD], BAD),
        ([BAD, 'bearer realm="api"'], BAD),
        ([BAD, 'Bearer realm="api", error="invalid_request", error_description="Other", max_age="5"'], BAD),
        ([BAD, 'Bearer realm="api", error="x", algs="ES256"'], f'{BAD}, algs="ES256"'),
        (['Bearer realm="api", DPoP realm="api", algs="ES256"', BAD], f'{BAD}, DPoP realm="api", algs="ES256"'),
        (['Own realm = "a\\", b" ,\tkey=value'], 'Own realm="a\\", b", key=value'),
        (["Negotiate", "Negotiate"], "Negotiate"),
        (["NTLM abc==", 'Basic realm="x"'], 'NTLM abc==, Basic realm="x"'),
        (["NTLM Xabc"], "NTLM Xabc"),
        ([", ,", 'Basic realm="x",'], 'Basic realm="x"'),
        ([' ,\t,Basic realm="x"'], 'Basic realm="x"'),
        (['"quoted", Basic realm="x"'], 'Basic realm="x"'),
        (['\x0bBasic realm="x"', "NTLM \x0babc"], "NTLM \x0babc"),
        (['Basic realm="open, Bearer realm=api'], 'Basic realm="open, Bearer realm=api'),
        (['"quoted"', 'Basic realm="x", @'], 'Basic realm="x"'),
    ],
)
def test_merged(challenges: list[str], field: str) -> None:
    """Challenges of one scheme and realm are merged, with each parameter once; the first of two refusals counts."""
    assert merged(*challenges) == field


_NAMES = st.text(ascii_letters, min_size=1, max_size=5)
_TEXTS = st.text("".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in '"\\'), max_size=12)
_CHALLENGES = st.builds(
    lambda scheme, parameters: f"{scheme} " + ", ".join(f'{name}="{value}"' for name, value in parameters.items()),
    _NAMES,
    st.dictionaries(_NAMES.map(str.lower), _TEXTS, min_size=1, max_size=4),
)


@given(st.lists(_CHALLENGES, max_size=4))
def test_what_is_merged_stays_as_it_is(challenges: list[str]) -> None:
    """Merging again changes nothing, and no scheme gets lost."""
    field = merged(*challenges)
    assert merged(field) == field
    schemes = {challenge.partition(" ")[0].lower() for challenge in challenges}
    assert {name.lower() for name in re.findall(r"(?:^|, )([A-Za-z]+) ", re.sub('"[^"]*"', "", field))} == schemes


@given(st.lists(st.text(), max_size=3))
def test_anything(challenges: list[str]) -> None:
    """Whatever an application put into its header, merging does not fail."""
    assert merged(merged(*challenges)) == merged(*challenges) or challenges
