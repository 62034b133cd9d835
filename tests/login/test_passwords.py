"""Passwords: whatever bytes come, the answer is yes or no, after the work of one hash."""

import asyncio
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard import ConfigurationError
from fastapi_guard.login.login import Login
from fastapi_guard.login.passwords import PasswordHasher, PasswordPolicy
from fastapi_guard.stores import MemoryStore
from support.examples import at_most
from support.passwords import CountingContext, quick_hasher

GOOD = "correct horse battery"
ODD_PASSWORDS: dict[str, str | bytes] = {
    "a megabyte": "a" * 1_000_000,
    "NUL": "a\0b",
    "73 bytes": "b" * 73,
    "too long by one": "c" * 1025,
    "4097 characters": "d" * 4097,
    "a lone surrogate": "\ud800",
    "no UTF-8": b"\xff\xfe",
    "empty": "",
    "empty bytes": b"",
}
ODD_HASHES = [
    "",
    "nonsense",
    "!",
    "*",
    "$argon2id$v=19$m=65536,t=3,p=4$AA",
    "$argon2id$v=19$m=1,t=1,p=9$" + "A" * 22 + "$" + "A" * 43,
    "$2b$12$short",
    "$2x$04$" + "." * 53,
    "\0",
    "\ud800",
    "{SHA}" + "A" * 28,
    "x" * 100_000,
]


@pytest.fixture
def hasher() -> Any:
    """Return a quick hasher."""
    quick = quick_hasher()
    yield quick
    quick.close()


async def test_hash_and_verify(hasher: PasswordHasher) -> None:
    """A password verifies against its own hash, and against no other."""
    made = await hasher.hash(GOOD)
    assert made.startswith("$argon2id$")
    assert made != await hasher.hash(GOOD)
    assert await hasher.verify(GOOD, made)
    assert await hasher.verify(GOOD.encode(), made)
    assert not await hasher.verify(GOOD + " ", made)
    assert not await hasher.verify(GOOD.upper(), made)
    assert not await hasher.verify(GOOD, None)


async def test_the_default_is_argon2id() -> None:
    """Without settings a hash is argon2id with 64 MiB, bcrypt is accepted, and anything else is not."""
    hasher = PasswordHasher()
    made = await hasher.hash(GOOD)
    assert made.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert await hasher.verify_and_update(GOOD, made) == (True, None)
    old = await quick_hasher("bcrypt").hash(GOOD)
    holds, newer = await hasher.verify_and_update(GOOD, old)
    assert holds
    assert newer is not None
    assert newer.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert not await hasher.verify(GOOD, "{SHA}" + "A" * 28)
    hasher.close()


async def test_passwords_are_taken_as_received(hasher: PasswordHasher) -> None:
    """Nothing is trimmed, cut or normalised: a composed and a decomposed letter are two passwords."""
    made = await hasher.hash("  pässword ")
    assert await hasher.verify("  pässword ", made)
    assert not await hasher.verify("pässword", made)
    assert not await hasher.verify("  pa\u0308ssword ", made)


@pytest.mark.parametrize("scheme", ["argon2", "bcrypt"])
@pytest.mark.parametrize("odd", ODD_PASSWORDS)
async def test_odd_passwords(scheme: str, odd: str) -> None:
    """A password that cannot be right is wrong: no exception, and the work of one hash."""
    hasher = quick_hasher("argon2", "bcrypt")
    stored = await quick_hasher(scheme).hash(GOOD)
    await hasher.verify(GOOD, stored)
    counted = CountingContext(hasher)
    assert not await hasher.verify(ODD_PASSWORDS[odd], stored)
    assert await hasher.verify_and_update(ODD_PASSWORDS[odd], stored) == (False, None)
    assert counted.calls["verify"] == 2
    assert await hasher.verify(GOOD, stored)
    hasher.close()


@pytest.mark.parametrize("stored", ODD_HASHES)
async def test_odd_hashes(hasher: PasswordHasher, stored: str) -> None:
    """A stored hash that cannot be verified is a wrong password: no exception, and the work of one hash."""
    await hasher.verify(GOOD, None)
    counted = CountingContext(hasher)
    assert await hasher.verify_and_update(GOOD, stored) == (False, None)
    assert counted.calls == {"verify": 1}
    assert await hasher.verify_and_update(GOOD, await hasher.hash(GOOD)) == (True, None)


QUICKEST = quick_hasher()


@at_most(60)
@given(st.text() | st.binary(), st.text() | st.none() | st.from_regex(r"\$(argon2id|2b)\$[!-~]{0,80}"))
def test_any_password_against_any_hash(password: str | bytes, stored: str | None) -> None:
    """Whatever the bytes, the answer is no, and never an exception."""
    assert asyncio.run(QUICKEST.verify_and_update(password, stored)) == (False, None)


async def test_the_first_verification_tells_nothing(hasher: PasswordHasher) -> None:
    """The decoy is made by the first verification of any kind."""
    stored = await hasher.hash(GOOD)
    for password, of in ((GOOD, stored), ("wrong", stored), (GOOD, None), (GOOD, "nonsense")):
        fresh = quick_hasher()
        counted = CountingContext(fresh)
        await fresh.verify(password, of)
        assert counted.calls == {"hash": 1, "verify": 1}
        fresh.close()


async def test_outdated_hashes(hasher: PasswordHasher) -> None:
    """A hash of another scheme or with other settings is due, and a right password makes the new one."""
    for old in (quick_hasher("bcrypt"), PasswordHasher(settings={"argon2__time_cost": 2, "argon2__memory_cost": 64})):
        stored = await old.hash(GOOD)
        assert hasher.needs_rehash(stored)
        holds, newer = await hasher.verify_and_update(GOOD, stored)
        assert holds
        assert newer is not None
        assert not hasher.needs_rehash(newer)
        assert await hasher.verify(GOOD, newer)
        assert await hasher.verify_and_update("wrong", stored) == (False, None)
        old.close()
    assert hasher.needs_rehash("nonsense")


OUTDATED = [
    ("argon2", "time_cost"),
    ("argon2", "rounds"),
    ("bcrypt", "rounds"),
    ("pbkdf2_sha256", "rounds"),
    ("scrypt", "rounds"),
    ("sha512_crypt", "rounds"),
    ("django_pbkdf2_sha256", "rounds"),
]
LEAST = {"argon2": 1, "bcrypt": 4, "pbkdf2_sha256": 10, "scrypt": 4, "sha512_crypt": 1000, "django_pbkdf2_sha256": 10}


@pytest.mark.parametrize(("scheme", "setting"), OUTDATED)
async def test_raised_rounds(scheme: str, setting: str) -> None:
    """A hash with fewer rounds than a new one is outdated, whether the rounds are configured or libpass's default."""
    few = LEAST[scheme]
    extra = {"argon2__memory_cost": 64} if scheme == "argon2" else {}
    old = PasswordHasher([scheme], settings={f"{scheme}__{setting}": few, **extra})
    stored = await old.hash(GOOD)
    assert not old.needs_rehash(stored)
    assert PasswordHasher([scheme], settings={f"{scheme}__{setting}": few + 1, **extra}).needs_rehash(stored)
    assert PasswordHasher([scheme], settings=extra).needs_rehash(stored)
    old.close()


async def test_more_rounds_than_the_default() -> None:
    """A hash with more rounds than the default is kept, unless the rounds are configured."""
    more = PasswordHasher(["pbkdf2_sha256"], settings={"pbkdf2_sha256__rounds": 40_000})
    stored = await more.hash(GOOD)
    assert not PasswordHasher(["pbkdf2_sha256"]).needs_rehash(stored)
    assert PasswordHasher(["pbkdf2_sha256"], settings={"pbkdf2_sha256__rounds": 30_000}).needs_rehash(stored)
    more.close()


async def test_the_work_of_an_outdated_hash(hasher: PasswordHasher) -> None:
    """A right and a wrong password cost the same where the hash is outdated."""
    stored = await quick_hasher("bcrypt").hash(GOOD)
    await hasher.verify(GOOD, None)
    counted = CountingContext(hasher)
    for password in (GOOD, "wrong"):
        counted.calls.clear()
        await hasher.verify_and_update(password, stored)
        assert counted.calls == {"verify": 1, "hash": 1}


async def test_hashes_and_plain_texts(hasher: PasswordHasher) -> None:
    """A hash is distinguished from a password in plain text."""
    assert hasher.identifies(await hasher.hash(GOOD))
    assert not any(hasher.identifies(text) for text in (GOOD, "", "$argon", "x" * 100_000, "\ud800"))
    assert not hasher.identifies(b"\xff")  # type: ignore[arg-type]


async def test_a_password_that_the_new_scheme_cannot_hash() -> None:
    """A password of 100 bytes stays with the scheme that took it, where the new one is bcrypt."""
    hasher = quick_hasher("bcrypt", "argon2")
    stored = await quick_hasher("argon2").hash("a" * 100)
    assert await hasher.verify_and_update("a" * 100, stored) == (True, None)
    hasher.close()


@pytest.mark.parametrize("password", ["a" * 1025, "\ud800", "ä" * 513])
async def test_a_password_that_cannot_be_set(hasher: PasswordHasher, password: str) -> None:
    """Setting a password that could never verify is an error, which does not hold the password."""
    with pytest.raises(ValueError, match=r"more than 1024 bytes$|a character that cannot be hashed$") as refused:
        await hasher.hash(password)
    assert refused.type is ValueError
    assert refused.value.__context__ is None
    assert await hasher.verify("a" * 1024, await hasher.hash("a" * 1024))


@pytest.mark.parametrize("password", ["a" * 73, "a\0b"])
async def test_a_password_that_bcrypt_cannot_hash(password: str) -> None:
    """A password that bcrypt would cut off is an error, in words of our own."""
    hasher = quick_hasher("bcrypt")
    with pytest.raises(ValueError, match=r"^the password is too long for its hash, or has a character that cannot be"):
        await hasher.hash(password)
    hasher.close()


async def test_other_schemes() -> None:
    """Other schemes of libpass are named by parameter, and then accepted."""
    hasher = PasswordHasher(["pbkdf2_sha256"], settings={"pbkdf2_sha256__rounds": 10})
    made = await hasher.hash(GOOD)
    assert made.startswith("$pbkdf2-sha256$10$")
    assert await hasher.verify(GOOD, made)
    hasher.close()


async def test_the_pool_is_bounded() -> None:
    """No more hashes are made at a time than there are workers, and none on the event loop."""
    hasher = quick_hasher()
    running, most, threads = 0, 0, set()
    lock = threading.Lock()

    class Slow(CountingContext):
        def hash(self, password: Any) -> Any:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
                threads.add(threading.get_ident())
            time.sleep(0.002)
            with lock:
                running -= 1
            return super().hash(password)

    Slow(hasher)
    await asyncio.gather(*(hasher.hash(GOOD) for _ in range(20)))
    assert most == 2
    assert threading.get_ident() not in threads
    hasher.close()
    hasher.close()


@pytest.mark.parametrize(
    ("schemes", "options"),
    [
        ("argon2", {}),
        ([], {}),
        (["none"], {}),
        (["argon2"], {"settings": {"argon2__memory_cost": "much"}}),
        (["argon2"], {"settings": {"argon2__no_such_thing": 1}}),
        (["argon2"], {"max_password_bytes": 0}),
        (["argon2"], {"max_password_bytes": 5000}),
        (["argon2"], {"workers": 0}),
    ],
)
def test_a_configuration_that_cannot_work(schemes: Any, options: dict[str, Any]) -> None:
    """Schemes, settings and bounds are checked at construction."""
    with pytest.raises(ConfigurationError):
        PasswordHasher(schemes, **options)


@pytest.mark.parametrize(
    "password",
    [
        "x" * 14,
        "a" * 30,
        "abc" * 10,
        "PASSWORDpassword",
        "Ada.Lovelace@Example.com",
        "y" * 257,
        "Password12345678",
        "!!!Football!!! 2026",
        "princessprincess!",
        "password123password123",
        "1football!1football!",
        "adalovelaceada1",
        "lovelace.example",
    ],
)
def test_a_password_that_may_not_be_set(password: str) -> None:
    """Too short, too long, common, a repetition, or the user's own name: refused with a text for the user."""
    with pytest.raises(ValueError, match=r"the password (has|is)"):
        PasswordPolicy().check(password, "ada.lovelace@example.com")


def test_a_password_that_may_be_set() -> None:
    """There are no rules of composition: a phrase is good, up to 64 characters and beyond; a phrase twice too."""
    for password in (
        "correct horse battery",
        "all lower case letters",
        " " * 3 + "ünïcödé " * 8 + "!",
        "a phrase twice!" * 2,
    ):
        PasswordPolicy().check(password, "ada@example.com")
    PasswordPolicy(min_characters=8).check("kq8ruw3z")
    PasswordPolicy().check("lovelace likes horses", "ada.lovelace@example.com")
    PasswordPolicy().check("193847561029384")
    with pytest.raises(ValueError, match="too easy to guess"):
        PasswordPolicy(min_characters=8).check("Baseball")
    with pytest.raises(ValueError, match="too easy to guess"):
        PasswordPolicy(blocked=["Acme Corporation 2026"]).check("ACME corporation 2026")


@pytest.mark.parametrize(
    "bounds", [{"min_characters": 7}, {"max_characters": 63}, {"min_characters": 80, "max_characters": 70}]
)
def test_a_policy_below_the_standard(bounds: dict[str, int]) -> None:
    """A policy cannot ask for less than NIST does."""
    with pytest.raises(ConfigurationError, match=r"(min|max)_characters is a whole number from (8|64|80)"):
        PasswordPolicy(**bounds)


@pytest.mark.parametrize("scheme", ["plaintext", "md5_crypt", "hex_sha256", "ldap_salted_sha1", "des_crypt"])
def test_a_scheme_without_a_cost(scheme: str) -> None:
    """A fast hash, or none, is accepted from old users alone: it makes no new hashes."""
    for wrong, settings in (([scheme, "argon2"], {}), (["argon2", scheme], {"default": scheme})):
        with pytest.raises(ConfigurationError) as refusal:
            PasswordHasher(wrong, settings=settings)
        assert f'{scheme} are guessed fast: write ["argon2", "{scheme}"]' in str(refusal.value)
    assert PasswordHasher(["argon2", scheme])


def test_the_beginning_of_a_hash() -> None:
    """A prefix, or a hash without its digest, is not a hash; a scheme in plain has no parts."""
    hasher = PasswordHasher()
    for text in ("$argon2id$", "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ", "$2b$12$", "$2b$", "secret", ""):
        assert not hasher.identifies(text)
        with pytest.raises(ConfigurationError, match="password_hash of 'ada' is not a hash"):
            Login({"ada": {"password_hash": text or "x"}}, MemoryStore())
    assert PasswordHasher(["argon2", "plaintext"]).identifies("secret")


async def test_closed_and_used_again() -> None:
    """An application that is stopped and started again in one process still verifies passwords."""
    hasher = PasswordHasher(["bcrypt"], settings={"bcrypt__rounds": 4})
    stored = await hasher.hash("wonderland")
    hasher.close()
    assert await hasher.verify("wonderland", stored)
    assert not await hasher.verify("nowhere", stored)
    hasher.close()


FORKED = """
import asyncio, os, sys
from fastapi_guard.login.passwords import PasswordHasher

hasher = PasswordHasher(["bcrypt"], settings={"bcrypt__rounds": 4})
stored = asyncio.run(hasher.hash("wonderland"))
assert asyncio.run(hasher.verify("wonderland", stored))
hasher._here().lock.acquire()
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert asyncio.run(hasher.verify("wonderland", stored))
assert asyncio.run(hasher.verify("nowhere", None)) is False
hasher.close()
os._exit(7)
"""


def test_a_fork() -> None:
    """A hasher that was used before a fork, as by `gunicorn --preload`, works in the child."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], timeout=60, check=False)  # noqa: S603
    assert done.returncode == 7
