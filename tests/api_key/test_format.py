import re
import string
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard import ConfigurationError
from fastapi_guard.api_key.format import KEY_ID, KeyFormat, checksum

FORMAT = KeyFormat()
WRONG: dict[str, Callable[[str], str]] = {
    "empty": lambda raw: "",
    "cut short": lambda raw: raw[:-1],
    "too long": lambda raw: raw + "a",
    "line feed": lambda raw: raw + "\n",
    "space in front": lambda raw: " " + raw,
    "upper case": lambda raw: raw.upper(),
    "another prefix": lambda raw: "pk" + raw[2:],
    "underscores": lambda raw: raw.replace("-", "_"),
    "NUL": lambda raw: raw[:30] + "\x00" + raw[31:],
    "non-ASCII": lambda raw: raw[:30] + "é" + raw[31:],
    "surrogate": lambda raw: raw[:30] + "\ud800" + raw[31:],
    "Arabic digit": lambda raw: raw[:5] + "٣" + raw[6:],
    "wrong checksum": lambda raw: raw[:-6] + ("000000" if raw[-6:] != "000000" else "000001"),
    "typo in the secret": lambda raw: raw[:20] + ("A" if raw[20] != "A" else "B") + raw[21:],
    "typo in the id": lambda raw: raw[:3] + ("a" if raw[3] != "a" else "b") + raw[4:],
    "a megabyte": lambda raw: raw * 15_000,
}


def test_the_text_of_a_key() -> None:
    """A key is its prefix, an id of 16, a secret of 43 characters and six of a checksum."""
    key_id, raw = FORMAT.generate()
    assert re.fullmatch(r"sk-[0-9a-z]{16}-[0-9A-Za-z]{43}[0-9A-Za-z]{6}", raw)
    assert raw.split("-")[1] == key_id
    assert KEY_ID.fullmatch(key_id)
    assert not KEY_ID.fullmatch("A" * 16)
    assert 62**43 > 2**256


def test_a_vector() -> None:
    """The checksum is CRC-32 in base 62, so that a scanner elsewhere can compute it."""
    body = "sk-0123456789abcdef-" + "A" * 43
    assert checksum(body) == "202cB4"
    assert FORMAT.parse(body + "202cB4") == "0123456789abcdef"
    assert FORMAT.parse(body + "202cB0") is None


def test_keys_differ() -> None:
    """No id and no secret comes twice, and each is drawn from its whole alphabet."""
    keys = [FORMAT.generate() for _ in range(500)]
    ids, secrets = {key.key_id for key in keys}, {key.raw[-49:-6] for key in keys}
    assert len(ids) == len(secrets) == 500
    assert set("".join(ids)) == set(string.digits + string.ascii_lowercase)
    assert set("".join(secrets)) == set(string.digits + string.ascii_letters)


def test_the_repr_hides_the_key() -> None:
    """A new key shows its id alone, and unpacks into id and key."""
    new = FORMAT.generate()
    assert repr(new) == str(new) == f"NewKey(key_id={new.key_id!r})"
    assert tuple(new) == (new.key_id, new.raw)


@pytest.mark.parametrize("prefix", ["sk", "a", "acme_live", "sk-live", "A" * 32, "x9"])
def test_prefixes(prefix: str) -> None:
    """A prefix of letters, digits, hyphens and underscores makes keys that parse and that the pattern finds."""
    keys = KeyFormat(prefix)
    new = keys.generate()
    assert keys.parse(new.raw) == new.key_id
    assert re.findall(keys.pattern, f'API_KEY="{new.raw}" # {new.raw}.') == [new.raw, new.raw]
    assert re.findall(keys.pattern, f"a{new.raw} {new.raw}a") == []


def test_an_id_in_upper_case() -> None:
    """An id has no capitals, whatever the checksum: a database that ignores case finds no other key's row."""
    for key_id, parsed in (("0123456789abcdef", "0123456789abcdef"), ("0123456789ABCDEF", None)):
        body = f"sk-{key_id}-{'A' * 43}"
        assert FORMAT.parse(body + checksum(body)) == parsed


def test_a_format_is_its_prefix() -> None:
    """Formats of one prefix are equal; the pattern follows from it, and neither changes."""
    keys = KeyFormat("acme")
    assert (keys, hash(keys)) == (KeyFormat("acme"), hash(KeyFormat("acme")))
    assert keys != FORMAT
    assert repr(keys) == f"KeyFormat(prefix='acme', environments=(), pattern={keys.pattern!r})"
    with pytest.raises(FrozenInstanceError):
        keys.prefix = "sk"  # type: ignore[misc]
    with pytest.raises(TypeError):
        KeyFormat("acme", "any")  # type: ignore[call-arg]


@pytest.mark.parametrize("prefix", ["", "9a", "-sk", "sk-", "sk_", "s k", "sk.", "clé", "A" * 33, "sk\n", None, 5])
def test_prefixes_that_could_not_be_sent(prefix: object) -> None:
    """Any other prefix is an error at construction, with the remedy."""
    with pytest.raises(ConfigurationError) as error:
        KeyFormat(prefix)  # type: ignore[arg-type]
    rule = 'use letters, digits, "_" and "-", at most 32, such as "acme"'
    assert str(error.value) == f"this prefix cannot begin a key: {rule}"


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_key(wrong: str) -> None:
    """A typo in any part, another prefix and an unrelated string have no id; the key itself has."""
    key_id, raw = FORMAT.generate()
    assert FORMAT.parse(WRONG[wrong](raw)) is None
    assert FORMAT.parse(raw) == key_id


@given(st.text())
def test_any_text(text: str) -> None:
    """Parsing is total: no text raises an error, and an unrelated one has no id."""
    assert FORMAT.parse(text) is None


@given(st.integers(0, 67), st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-"))
def test_one_wrong_character(place: int, character: str) -> None:
    """CRC-32 finds every single wrong character, wherever it stands."""
    key_id, raw = FORMAT.generate()
    changed = raw[:place] + character + raw[place + 1 :]
    assert FORMAT.parse(changed) == (key_id if changed == raw else None)


@given(st.from_regex(re.compile(r"[A-Za-z]([A-Za-z0-9_-]{0,30}[A-Za-z0-9])?"), fullmatch=True))
def test_every_prefix_round_trips(prefix: str) -> None:
    """A generated key parses to its id, whatever the prefix."""
    keys = KeyFormat(prefix)
    assert keys.parse(keys.generate().raw) is not None


MARKED = KeyFormat("sk", environments=("live", "test"))


@pytest.mark.parametrize("environment", ["live", "test"])
def test_environments(environment: str) -> None:
    """A key names its environment, its id is found, and the pattern of scanners finds it."""
    key_id, raw = MARKED.generate(environment)
    assert raw.startswith(f"sk_{environment}_{key_id}-")
    assert MARKED.parse(raw) == key_id
    assert re.findall(MARKED.pattern, f"key={raw};") == [raw]
    assert FORMAT.parse(raw) is None
    # The mark is part of what the checksum covers.
    other = "test" if environment == "live" else "live"
    assert MARKED.parse(raw.replace(environment, other, 1)) is None


def test_a_key_without_its_environment() -> None:
    """With several environments one has to be chosen; with one it need not be, and without any it cannot be."""
    for environment in (None, "prod", ""):
        with pytest.raises(ValueError, match="environment is one of live, test"):
            MARKED.generate(environment)
    assert KeyFormat("sk", environments=["live"]).generate().raw.startswith("sk_live_")
    with pytest.raises(ValueError, match="environment is not used by these keys"):
        FORMAT.generate("live")
    assert MARKED.parse(FORMAT.generate().raw) is None


@pytest.mark.parametrize("environments", ["live", ["Live"], ["li-ve"], ["x" * 17], [""], [5], ["live", "live"]])
def test_environments_that_are_rejected(environments: Any) -> None:
    """An environment is a short name of lower case letters and digits, each once."""
    with pytest.raises(ConfigurationError, match=r"environments (are names of lower case|is a list of texts)"):
        KeyFormat(environments=environments)
