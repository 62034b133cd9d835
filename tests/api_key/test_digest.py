import hashlib
import hmac
import json
from typing import Any

import pytest
from pydantic import SecretBytes, SecretStr

from fastapi_guard import ConfigurationError
from fastapi_guard.api_key.digest import DECOY, Peppers, StoredDigest
from fastapi_guard.stores.hidden import HiddenBytes

OLD, NEW = "the-older-pepper-of-this-house", "the-newer-pepper-of-this-house"


def test_what_is_stored() -> None:
    """It is HMAC-SHA256 of the key under a random salt and the pepper, as documented."""
    stored = Peppers({"1": OLD}).store("sk-key")
    expected = hmac.new(bytes(stored.salt) + OLD.encode(), b"sk-key", hashlib.sha256).digest()
    assert (bytes(stored.digest), stored.pepper, len(stored.salt)) == (expected, "1", 16)
    assert Peppers({"1": OLD}).store("sk-key").digest != stored.digest


def test_without_peppers() -> None:
    """Without a pepper the salt alone is the key of the HMAC."""
    stored = Peppers().store("sk-key")
    assert bytes(stored.digest) == hmac.new(bytes(stored.salt), b"sk-key", hashlib.sha256).digest()
    assert stored.pepper is None
    assert Peppers().matches("sk-key", stored)
    assert not Peppers().matches("sk-kez", stored)
    assert Peppers({"1": OLD}).matches("sk-key", stored)


@pytest.mark.parametrize(
    ("peppers", "newest"),
    [
        ({"2": NEW, "1": OLD}, "2"),
        ({"1": OLD, "2": NEW}, "2"),
        ({"9": OLD, "10": NEW}, "10"),
        ({"b": NEW, "a": OLD}, "b"),
        ({"2026-11": NEW, "2025-11": OLD}, "2026-11"),
    ],
)
def test_the_newest_makes_new_digests(peppers: dict[str, str], newest: str) -> None:
    """The highest number is the newest, else the first; digests of each still match."""
    both = Peppers(peppers)
    assert both.store("sk-key").pepper == newest
    for version, secret in peppers.items():
        assert both.matches("sk-key", Peppers({version: secret}).store("sk-key"))


def test_another_deployments_pepper() -> None:
    """Another secret under the same version does not match, nor does a version that is not here."""
    stored = Peppers({"1": OLD}).store("sk-key")
    assert Peppers({"1": OLD}).matches("sk-key", stored)
    assert not Peppers({"1": NEW}).matches("sk-key", stored)
    assert not Peppers({"2": OLD}).matches("sk-key", stored)
    assert not Peppers().matches("sk-key", stored)


def test_an_unknown_version_matches_nothing_even_by_its_digest() -> None:
    """A row that names an unknown pepper is refused although its digest would match without one."""
    plain = Peppers().store("sk-key")
    assert not Peppers({"1": OLD}).matches("sk-key", StoredDigest(plain.salt, plain.digest, "9"))


def test_the_decoy() -> None:
    """The decoy for a missing row matches nothing."""
    assert not Peppers().matches("sk-key", DECOY)


@pytest.mark.parametrize(
    ("peppers", "message"),
    [
        ({"1": "short"}, "shorter than 16 bytes"),
        ({"1": ""}, "shorter than 16 bytes"),
        ({"1": None}, "shorter than 16 bytes"),
        ({"": OLD}, "the version of pepper number 1"),
        ({1: OLD}, "the version of pepper number 1"),
        ({"1": OLD, "v" * 16: OLD}, "the version of pepper number 2"),
        ({"a\n": OLD}, "the version of pepper number 1"),
        ({OLD: "1"}, "a secret belongs behind its version"),
        ({"0123456789abcdef": "2024-01-01-first"}, "a secret belongs behind its version"),
        ({"a-short-secret": "1"}, "pepper number 1 is shorter than 16 bytes"),
        ([OLD], "peppers are secrets by version, such as .*, not list"),
        (OLD, "peppers are secrets by version, such as .*, not str"),
    ],
)
def test_peppers_that_could_not_work(peppers: Any, message: str) -> None:
    """A short secret and an odd version are rejected; neither is in the message, since they may be exchanged."""
    with pytest.raises(ConfigurationError, match=message) as refusal:
        Peppers(peppers)
    assert not [text for text in (OLD, "0123456789abcdef", "a-short-secret", "2024") if text in str(refusal.value)]


def test_peppers_of_pydantic() -> None:
    """A pepper may be a SecretStr or a SecretBytes, as a settings model has it."""
    stored = Peppers({"1": OLD}).store("sk-key")
    assert Peppers({"1": SecretStr(OLD)}).matches("sk-key", stored)
    assert Peppers({"1": SecretBytes(OLD.encode())}).matches("sk-key", stored)


def test_bytes_are_taken_too() -> None:
    """A pepper may be bytes; text is its UTF-8."""
    assert Peppers({"1": OLD.encode()}).matches("sk-key", Peppers({"1": OLD}).store("sk-key"))
    odd = "a pepper with a surrogate \ud800"
    assert Peppers({"1": odd.encode("utf-8", "surrogatepass")}).matches("sk-key", Peppers({"1": odd}).store("sk-key"))


def test_the_shortest_pepper() -> None:
    """Sixteen bytes are enough, fifteen are not; the error has the command that makes one."""
    assert Peppers({"1": "x" * 16})
    assert not Peppers({})
    with pytest.raises(ConfigurationError) as refusal:
        Peppers({"1": "x" * 15})
    assert str(refusal.value) == (
        "pepper number 1 is shorter than 16 bytes: make one with"
        " python -c 'import secrets; print(secrets.token_urlsafe(32))'"
    )


def test_a_version_and_a_secret_that_were_exchanged() -> None:
    """The error names the number of the pepper and the form of a version."""
    with pytest.raises(ConfigurationError) as refusal:
        Peppers({"1": OLD, "a version": NEW})
    assert str(refusal.value).endswith(
        ': the version of pepper number 2 is not a text of 1 to 15 letters, digits, ".", "_" and "-";'
        " a secret belongs behind its version"
    )


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable holds a JSON object; where it is not set there are none."""
    monkeypatch.delenv("FASTAPI_GUARD_PEPPERS", raising=False)
    assert not Peppers.from_environment()
    monkeypatch.setenv("FASTAPI_GUARD_PEPPERS", json.dumps({"1": OLD, "2": NEW}))
    assert Peppers.from_environment()
    assert Peppers.from_environment().store("sk-key").pepper == "2"
    monkeypatch.setenv("OTHER", json.dumps({"1": OLD}))
    assert Peppers.from_environment("OTHER").store("sk-key").pepper == "1"


@pytest.mark.parametrize("value", ["secret-secret-secret-secret", "[]", '{"1": 5}', "1"])
def test_an_environment_that_says_something_else(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Anything but an object of texts is refused, without showing it."""
    monkeypatch.setenv("FASTAPI_GUARD_PEPPERS", value)
    with pytest.raises(ConfigurationError) as refusal:
        Peppers.from_environment()
    expected = 'FASTAPI_GUARD_PEPPERS is a JSON object, secrets by version, such as {"1": "..."}'
    assert str(refusal.value) == expected
    assert "secret-secret" not in str(refusal.value)


def test_nothing_shows_what_is_hidden() -> None:
    """Peppers show their versions alone, hidden bytes nothing."""
    peppers = Peppers({"1": OLD})
    assert repr(peppers) == "Peppers(versions=['1'])"
    assert OLD not in f"{peppers} {vars(type(peppers))}"
    hidden = HiddenBytes(b"digest")
    assert repr(hidden) == str(hidden) == f"{hidden}" == "<hidden>"
    assert "digest'" not in repr(peppers.store("sk-key"))
    assert hidden == b"digest"
