import re

import pytest

from fastapi_guard import ConfigurationError
from fastapi_guard.login.keyring import Keyring
from support.factors import KEY, OTHER_KEY


def test_seal_and_open() -> None:
    """A sealed text opens for its owner alone, and no two are the same."""
    keys = Keyring(KEY, "totp")
    sealed = keys.seal(b"secret", "ada", "f1")
    assert keys.open(sealed, "ada", "f1") == b"secret"
    assert keys.seal(b"secret", "ada", "f1") != sealed
    assert [
        keys.open(sealed, *owner) for owner in (("eve", "f1"), ("ada", "f2"), ("adaf1",), ("ada",), ("a", "daf1"))
    ] == [None] * 5


def test_purposes_are_apart() -> None:
    """Keys of one secret for two purposes have nothing in common."""
    totp, mail = Keyring(KEY, "totp"), Keyring(KEY, "mailed codes")
    assert mail.open(totp.seal(b"secret", "ada"), "ada") is None
    assert not mail.matches(totp.mac("code"), "code")
    assert totp.derive("x") != mail.derive("x")


def test_rotation() -> None:
    """The first key makes, all keys open and match, and a key that was dropped does neither."""
    old = Keyring({"1": KEY}, "totp")
    sealed, mac = old.seal(b"secret", "ada"), old.mac("code")
    both = Keyring({"2": OTHER_KEY, "1": KEY}, "totp")
    assert both.open(sealed, "ada") == b"secret"
    assert both.matches(mac, "code")
    assert not both.is_current(sealed)
    assert both.is_current(both.seal(b"secret", "ada"))
    assert both.is_current(both.mac("code"))
    new = Keyring({"2": OTHER_KEY}, "totp")
    assert new.open(sealed, "ada") is None
    assert not new.matches(mac, "code")
    assert new.open(both.seal(b"secret", "ada"), "ada") == b"secret"


def test_one_secret_has_the_id_1() -> None:
    """A single secret can become one of several."""
    assert (
        Keyring({"2": OTHER_KEY, "1": KEY}, "totp").open(
            Keyring(KEY.encode(), "totp").seal(b"x"),
        )
        == b"x"
    )


@pytest.mark.parametrize(
    "text",
    ["", ".", "1", "1.", "1.!!", "1.AAAA", "2.AAAA", "1.é", "\ud800", "1.\ud800", "1." + "A" * 64, ".." * 9],
)
def test_what_was_never_sealed(text: str) -> None:
    """Any other text opens nothing and matches nothing, without an exception."""
    keys = Keyring(KEY, "totp")
    assert keys.open(text, "ada") is None
    assert not keys.matches(text, "code")


def test_a_changed_ciphertext() -> None:
    """A ciphertext with any character changed does not open."""
    keys = Keyring(KEY, "totp")
    sealed = keys.seal(b"secret", "ada")
    body = sealed[2:]
    changed = [f"1.{body[:at]}{'B' if body[at] != 'B' else 'C'}{body[at + 1 :]}" for at in range(len(body))]
    assert {keys.open(text, "ada") for text in changed} == {None}


def test_a_mac_is_of_its_message() -> None:
    """A MAC matches its own message, however its parts are cut."""
    keys = Keyring(KEY, "mail")
    mac = keys.mac("login", "12345678")
    assert keys.matches(mac, "login", "12345678")
    assert not keys.matches(mac, "login1", "2345678")
    assert not keys.matches(mac, "login", "12345679")
    assert keys.matches(keys.mac("\ud800"), "\ud800")


def test_derive() -> None:
    """Derived bytes are the same each time, and others for another message or key."""
    keys = Keyring(KEY, "decoys")
    assert keys.derive("ada") == keys.derive("ada") != keys.derive("eve")
    assert keys.derive("ada") != Keyring(OTHER_KEY, "decoys").derive("ada")
    assert len(keys.derive("ada")) == 32


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("short", "at least 32 bytes"),
        (b"x" * 31, "at least 32 bytes"),
        (None, "at least 32 bytes"),
        (7, "at least 32 bytes"),
        ({}, "there is no key for totp"),
        ({"1": "short"}, "at least 32 bytes"),
        ({"": KEY}, "the id of a key"),
        ({"a.b": KEY}, "the id of a key"),
        ({"a" * 33: KEY}, "the id of a key"),
        ({1: KEY}, "the id of a key"),
        ("x" * 32, "a key for totp is one byte over and over, so it can be guessed: use 32 random bytes: python -c"),
        ("your-secret-key-your-secret-key-1", "well-known sample"),
    ],
)
def test_refused_secrets(secret: object, message: str) -> None:
    """A weak secret or an odd id is refused with the remedy, and the secret is not repeated."""
    with pytest.raises(ConfigurationError, match=re.escape(message)) as refused:
        Keyring(secret, "totp")  # type: ignore[arg-type]
    assert KEY not in str(refused.value)


def test_the_repr_shows_ids_alone() -> None:
    """No secret is in the repr."""
    assert repr(Keyring({"2": OTHER_KEY, "1": KEY}, "totp")) == "Keyring(ids=['2', '1'])"
