import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.jwt.compact import decode_base64url
from fastapi_guard.login.keyring import Keyring, mailing_keys
from fastapi_guard.login.mailed_secrets import LIFETIMES, Issued, Mailed, MailedSecrets, Purpose
from fastapi_guard.login.messages import link_to
from fastapi_guard.stores import MemoryStore, Store
from support.clock import Clock
from support.examples import at_most
from support.factors import KEY, OTHER_KEY
from support.login import CountingStore

BROWSER = "browser-1"
RESET = Mailed(purpose="reset_password", subject="ada", address="ada@example.com", version=3, payload={"n": 1})


@pytest.fixture
def mailed(clock: Clock) -> MailedSecrets:
    """Return mailed secrets in memory."""
    return MailedSecrets(MemoryStore(clock=clock), mailing_keys(KEY), clock=clock)


async def issued(secrets: MailedSecrets, mailed: Mailed = RESET, handle: str | None = BROWSER) -> Issued:
    """Issue a secret."""
    found = await secrets.issue(mailed, handle)
    assert found is not None
    return found


def another(code: str) -> str:
    """Return another code."""
    return f"{(int(code) + 1) % 10**8:08}"


async def test_link_and_code(mailed: MailedSecrets, clock: Clock) -> None:
    """A link has 384 bits, a code eight digits; each presents the same secret, once used neither does."""
    secret = await issued(mailed)
    assert len(decode_base64url(secret.token.encode())) == 48
    assert len(secret.code) == 8
    assert secret.code.isdigit()
    assert secret.expires_at == clock() + 900
    by_link = await mailed.present("reset_password", token=secret.token)
    by_code = await mailed.present("reset_password", code=secret.code, handle=BROWSER)
    assert by_link is not None
    assert by_code is not None
    assert by_link.mailed == by_code.mailed == RESET
    assert await mailed.use(by_code)
    assert not await mailed.use(by_link)
    assert await mailed.present("reset_password", token=secret.token) is None
    assert await mailed.present("reset_password", code=secret.code, handle=BROWSER) is None


async def test_the_name_and_the_keys(mailed: MailedSecrets, clock: Clock) -> None:
    """By default the secrets are those of the Login that has the default name; their keys are for them alone."""
    secret = await issued(mailed)
    named = MailedSecrets(mailed._store, Keyring(KEY, "mailed secrets"), name="login", clock=clock)
    assert await named.present("reset_password", token=secret.token) is not None
    assert await named.present("reset_password", code=secret.code, handle=BROWSER) is not None
    with pytest.raises(ConfigurationError, match="there is no key for mailed secrets"):
        mailing_keys({})


async def test_codes_are_random_over_all_digits(mailed: MailedSecrets) -> None:
    """Of 64 codes no two are alike, and they spread over all eight digits; so do the secrets of links."""
    secrets = [await issued(mailed, RESET, f"browser-{number}") for number in range(64)]
    codes = [int(secret.code) for secret in secrets]
    assert len(set(codes)) == 64
    assert min(codes) < 50_000_000 < max(codes)
    for place in range(8):
        assert len({secret.code[place] for secret in secrets}) > 3
    assert len({secret.token[22:] for secret in secrets}) == 64


async def test_a_link_without_a_browser(mailed: MailedSecrets) -> None:
    """Without a handle each link is another one, and both are valid."""
    first, second = await mailed.issue(RESET), await mailed.issue(RESET)
    assert first is not None
    assert second is not None
    for secret in (first, second):
        presented = await mailed.present("reset_password", token=secret.token)
        assert presented is not None
        assert not presented.is_same_browser


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_the_number_of_secrets_under_a_handle(mailed: MailedSecrets, clock: Clock, most: int) -> None:
    """So many are issued under one handle, the last of which is valid; tries stay counted over all of them."""
    last: Issued | None = None
    for _ in range(most):
        last = await mailed.issue(RESET, BROWSER, most=most)
        assert last is not None
        assert last.expires_at == clock() + 900
        await mailed.present("reset_password", code=another(last.code), handle=BROWSER)
    assert await mailed.issue(RESET, BROWSER, most=most) is None
    assert last is not None
    for _ in range(5 - most - 1):
        assert await mailed.present("reset_password", code=another(last.code), handle=BROWSER) is None
    assert await mailed.present("reset_password", code=last.code, handle=BROWSER) is not None
    assert await mailed.present("reset_password", code=last.code, handle=BROWSER) is None


@pytest.mark.parametrize(("length", "read"), [(32, True), (33, False)])
async def test_the_longest_spelling_of_a_code(mailed: MailedSecrets, length: int, *, read: bool) -> None:
    """A code with spaces and hyphens has at most 32 characters."""
    secret = await issued(mailed)
    spelled = (secret.code[:4] + " -\t" + secret.code[4:]).ljust(length)
    assert (await mailed.present("reset_password", code=spelled, handle=BROWSER) is not None) is read


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_a_payload_that_is_not_json(mailed: MailedSecrets, number: float) -> None:
    """A number that JSON has not is an error where the secret is issued."""
    with pytest.raises(ValueError, match="JSON"):
        await mailed.issue(replace(RESET, payload={"n": number}), BROWSER)


async def test_waiting_for_its_own_purpose(mailed: MailedSecrets) -> None:
    """A secret that waits under a handle is found for its purpose alone, and not once it was used."""
    assert await mailed.waiting("reset_password", BROWSER) is None
    secret = await issued(mailed)
    assert await mailed.waiting("reset_password", BROWSER) == RESET
    assert await mailed.waiting("log_in", BROWSER) is None
    assert await mailed.waiting("reset_password", "browser-2") is None
    presented = await mailed.present("reset_password", token=secret.token)
    assert presented is not None
    assert await mailed.use(presented)
    assert await mailed.waiting("reset_password", BROWSER) is None


async def test_nothing_is_stored_that_could_be_presented(clock: Clock) -> None:
    """The store has neither link nor code, nor a plain hash of the code; the repr has none of them."""
    store = MemoryStore(clock=clock)
    mailed = MailedSecrets(store, mailing_keys(KEY), clock=clock)
    secret = await issued(mailed)
    presented = await mailed.present("reset_password", token=secret.token)
    assert presented is not None
    stored = repr([(record.key, record.value) for record in store._records.values()])
    assert not [text for text in (secret.token, secret.code, BROWSER) if text in stored]
    other = MailedSecrets(store, mailing_keys(OTHER_KEY), clock=clock)
    assert await other.present("reset_password", token=secret.token) is None
    assert await other.present("reset_password", code=secret.code, handle=BROWSER) is None
    assert secret.token not in repr(secret) + repr(presented)
    assert secret.code not in repr(secret) + repr(presented)


async def test_the_browser(mailed: MailedSecrets) -> None:
    """A link shows whether it is presented by the browser that asked, and works without; a code needs the browser."""
    secret = await issued(mailed)
    for handle, same in ((BROWSER, True), ("browser-2", False), (None, False)):
        presented = await mailed.present("reset_password", token=secret.token, handle=handle)
        assert presented is not None
        assert presented.is_same_browser is same
        code = await mailed.present("reset_password", code=secret.code, handle=handle)
        assert (code is not None) is same


@pytest.mark.parametrize("purpose", [purpose for purpose in LIFETIMES if purpose != "reset_password"])
async def test_another_purpose(mailed: MailedSecrets, purpose: Purpose) -> None:
    """A secret is invalid for every purpose but its own, and is not used up by that."""
    secret = await issued(mailed)
    assert await mailed.present(purpose, token=secret.token) is None
    assert await mailed.present(purpose, code=secret.code, handle=BROWSER) is None
    assert await mailed.present("reset_password", token=secret.token) is not None


async def test_another_login(clock: Clock) -> None:
    """A secret of one Login is invalid for another on the same store, with the same key."""
    store, keys = MemoryStore(clock=clock), mailing_keys(KEY)
    customers, staff = MailedSecrets(store, keys, clock=clock), MailedSecrets(store, keys, name="staff", clock=clock)
    secret = await issued(customers)
    assert await staff.present("reset_password", token=secret.token) is None
    assert await staff.present("reset_password", code=secret.code, handle=BROWSER) is None
    await staff.end("ada")
    assert await customers.present("reset_password", token=secret.token) is not None


@pytest.mark.parametrize("purpose", LIFETIMES)
async def test_lifetimes(mailed: MailedSecrets, clock: Clock, purpose: Purpose) -> None:
    """Each purpose has its lifetime, after which link and code are invalid."""
    secret = await issued(mailed, Mailed(purpose=purpose, subject="ada", address="a@b"))
    clock.move(LIFETIMES[purpose] - timedelta(seconds=1))
    assert await mailed.present(purpose, token=secret.token) is not None
    clock.move(1)
    assert await mailed.present(purpose, token=secret.token) is None
    assert await mailed.present(purpose, code=secret.code, handle=BROWSER) is None


def test_the_lifetimes_are_those_of_the_rules() -> None:
    """Ten minutes to log in, 15 to reset, 24 hours to verify, seven days for an invitation."""
    minutes = {purpose: lifetime / timedelta(minutes=1) for purpose, lifetime in LIFETIMES.items()}
    assert minutes == {
        "verify_address": 1440,
        "reset_password": 15,
        "log_in": 10,
        "second_factor": 10,
        "change_address": 1440,
        "invitation": 10080,
    }


async def test_five_tries(mailed: MailedSecrets) -> None:
    """After five wrong codes the right one is refused too, while the link stays valid."""
    secret = await issued(mailed)
    for _ in range(5):
        assert await mailed.present("reset_password", code=another(secret.code), handle=BROWSER) is None
    assert await mailed.present("reset_password", code=secret.code, handle=BROWSER) is None
    assert await mailed.present("reset_password", token=secret.token) is not None


async def test_the_fifth_try(mailed: MailedSecrets) -> None:
    """Four wrong codes leave one try."""
    secret = await issued(mailed)
    for _ in range(4):
        await mailed.present("reset_password", code=another(secret.code), handle=BROWSER)
    assert await mailed.present("reset_password", code=secret.code, handle=BROWSER) is not None


async def test_another_code_means_no_other_tries(mailed: MailedSecrets) -> None:
    """A code that is sent again replaces the one of before, and the tries stay counted."""
    first = await issued(mailed)
    for _ in range(4):
        await mailed.present("reset_password", code=another(first.code), handle=BROWSER)
    second = await issued(mailed)
    assert await mailed.present("reset_password", token=first.token) is None
    assert await mailed.present("reset_password", code=another(second.code), handle=BROWSER) is None
    assert await mailed.present("reset_password", code=second.code, handle=BROWSER) is None


async def test_most(mailed: MailedSecrets) -> None:
    """No more than so many are issued under one handle."""
    assert [await mailed.issue(RESET, BROWSER, most=2) is not None for _ in range(4)] == [True, True, False, False]
    assert await mailed.issue(RESET, "browser-2", most=2) is not None


async def test_a_wrong_link_does_not_count(mailed: MailedSecrets) -> None:
    """A link with the right name and a wrong secret is refused, and counts for nothing: it cannot be guessed."""
    secret = await issued(mailed)
    for _ in range(10):
        assert await mailed.present("reset_password", token=secret.token[:-4] + "AAAA") is None
    assert await mailed.present("reset_password", token=secret.token) is not None


@pytest.mark.parametrize(
    "token", ["", "x", 7, True, [], {}, "é" * 64, "\ud800" * 64, "A" * 63, "A" * 65, "A" * 64, "=" * 64, "A" * 10**6]
)
async def test_malformed_links(mailed: MailedSecrets, token: Any) -> None:
    """A text that is not a link is refused without an exception."""
    await issued(mailed)
    assert await mailed.present("reset_password", token=token, handle=BROWSER) is None


async def test_what_cannot_be_found(clock: Clock) -> None:
    """A malformed link, and a code without a browser, are refused without a look into the store."""
    store = CountingStore(MemoryStore(clock=clock))
    mailed = MailedSecrets(store, mailing_keys(KEY), clock=clock)
    secret = await issued(mailed)
    store.trips.clear()
    assert await mailed.present("reset_password", token=secret.token[:-1], handle=BROWSER) is None
    assert await mailed.present("reset_password", code=secret.code) is None
    assert store.trips == []


async def test_a_secret_that_led_to_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """It is put back where the store can be reached, and is lost with a line in the log where it cannot."""
    store = CountingStore(MemoryStore(clock=clock))
    mailed = MailedSecrets(store, mailing_keys(KEY), clock=clock)
    secret = await issued(mailed)

    async def unavailable() -> None:
        raise ServiceUnavailable(reason="store_unreachable")

    for is_lost in (False, True):
        presented = await mailed.present("reset_password", token=secret.token)
        assert presented is not None
        assert await mailed.use(presented)
        if is_lost:
            store.before["add"] = unavailable
        await mailed.put_back(presented)
    assert caplog.messages == ["a mailed secret that led to nothing could not be put back: ServiceUnavailable"]
    assert await mailed.present("reset_password", token=secret.token) is None


@pytest.mark.parametrize("code", [123, "١٢٣٤٥٦٧٨", "-" * 8, "", "\ud800", ["1"], None])
async def test_codes_of_other_characters(mailed: MailedSecrets, code: Any) -> None:
    """A text of other characters, or another type, is a wrong code, and counts."""
    secret = await issued(mailed)
    for _ in range(5):
        assert await mailed.present("reset_password", code=code, handle=BROWSER) is None
    assert await mailed.present("reset_password", code=secret.code, handle=BROWSER) is None


@at_most(60)
@given(st.none() | st.integers() | st.text() | st.lists(st.text()), st.none() | st.text())
async def test_total(value: Any, handle: str | None) -> None:
    """Whatever JSON stands for a link or a code, there is an answer."""
    mailed = MailedSecrets(MemoryStore(), mailing_keys(KEY))
    await issued(mailed)
    assert await mailed.present("reset_password", token=value, code=value, handle=handle) is None
    assert await mailed.present("reset_password", code=value, handle=BROWSER) is None


@pytest.mark.parametrize("spelled", ["{0}-{1}", " {0} {1}\n", "{0}{1}"])
async def test_spellings(mailed: MailedSecrets, spelled: str) -> None:
    """White space and a hyphen in a code make no difference."""
    secret = await issued(mailed)
    typed = spelled.format(secret.code[:4], secret.code[4:])
    assert await mailed.present("reset_password", code=typed, handle=BROWSER) is not None


async def test_truncated(mailed: MailedSecrets) -> None:
    """A part of a link or a code is refused."""
    secret = await issued(mailed)
    assert await mailed.present("reset_password", token=secret.token[:-1]) is None
    assert await mailed.present("reset_password", code=secret.code[:-1], handle=BROWSER) is None
    assert await mailed.present("reset_password", code=secret.code + "0", handle=BROWSER) is None


async def test_using_one_ends_the_others(mailed: MailedSecrets) -> None:
    """The other secrets of the user end with the one that is used; those of other users go on."""
    verify = await issued(mailed, Mailed(purpose="verify_address", subject="ada", address="a@b"))
    reset = await issued(mailed)
    other = await issued(mailed, Mailed(purpose="reset_password", subject="eve", address="e@b"), "browser-2")
    presented = await mailed.present("reset_password", token=reset.token)
    assert presented is not None
    assert await mailed.is_waiting("ada")
    assert await mailed.use(presented)
    assert not await mailed.is_waiting("ada")
    assert await mailed.present("verify_address", token=verify.token) is None
    assert await mailed.present("reset_password", token=other.token) is not None


async def test_without_a_user(mailed: MailedSecrets) -> None:
    """An invitation belongs to its address, and has no browser."""
    invitation = Mailed(purpose="invitation", subject="", address="new@example.com")
    secret = await issued(mailed, invitation, None)
    assert await mailed.is_waiting("new@example.com")
    presented = await mailed.present("invitation", token=secret.token, handle=BROWSER)
    assert presented is not None
    assert not presented.is_same_browser
    assert await mailed.use(presented)
    assert not await mailed.is_waiting("new@example.com")


async def test_key_rotation(clock: Clock) -> None:
    """A secret that was issued with an older key is valid while that key is configured."""
    store = MemoryStore(clock=clock)
    old = await issued(MailedSecrets(store, mailing_keys({"1": KEY}), clock=clock))
    both = MailedSecrets(store, mailing_keys({"2": OTHER_KEY, "1": KEY}), clock=clock)
    assert await both.present("reset_password", token=old.token) is not None
    new = MailedSecrets(store, mailing_keys({"2": OTHER_KEY}), clock=clock)
    assert await new.present("reset_password", token=old.token) is None
    with pytest.raises(ConfigurationError):
        mailing_keys("short")


@pytest.mark.parametrize("how", ["token", "code"])
async def test_used_once_of_many(store: Store, clock: Clock, how: str) -> None:
    """Of many that present and use one secret at the same time one succeeds, on each store."""
    mailed = MailedSecrets(store, mailing_keys(KEY), clock=clock)
    secret = await issued(mailed)

    async def present_and_use() -> bool:
        shown = {"token": secret.token} if how == "token" else {"code": secret.code, "handle": BROWSER}
        presented = await mailed.present("reset_password", **shown)
        return presented is not None and await mailed.use(presented)

    used = await asyncio.gather(*(present_and_use() for _ in range(8)))
    assert used.count(True) == 1


SECOND = Mailed(purpose="second_factor", subject="ada", address="ada@example.com", version=3)


async def test_the_code_of_a_second_step(mailed: MailedSecrets) -> None:
    """It is used once, under its handle, for what it was sent for; another one can be issued then."""
    secret = await issued(mailed, SECOND)
    for other, handle in ((SECOND, "browser-2"), (replace(SECOND, subject="eve"), BROWSER)):
        assert not await mailed.use_code(other, secret.code, handle)
    for changed in (replace(SECOND, address="other@example.com"), replace(SECOND, version=4)):
        assert not await mailed.use_code(changed, secret.code, BROWSER)
    assert await mailed.use_code(SECOND, secret.code, BROWSER)
    assert not await mailed.use_code(SECOND, secret.code, BROWSER)
    assert not await mailed.is_waiting("ada")
    again = await issued(mailed, SECOND)
    assert await mailed.use_code(SECOND, again.code, BROWSER)


async def test_the_code_of_a_second_step_is_over_for_every_clock(clock: Clock) -> None:
    """A code that was used is used for a worker whose clock is behind, too."""
    store = MemoryStore(clock=clock)
    mailed = MailedSecrets(store, mailing_keys(KEY), clock=clock)
    secret = await issued(mailed, SECOND)
    assert await mailed.use_code(SECOND, secret.code, BROWSER)
    clock.move(-120)
    assert not await mailed.use_code(SECOND, secret.code, BROWSER)


async def test_tries_of_the_code_of_a_second_step(mailed: MailedSecrets) -> None:
    """Five wrong codes end it, also over several codes under one handle; the fifth may be the right one."""
    secret = await issued(mailed, SECOND)
    for value in (another(secret.code), "", None, 7):
        assert not await mailed.use_code(SECOND, value, BROWSER)
    again = await issued(mailed, SECOND)
    assert await mailed.use_code(SECOND, again.code, BROWSER)
    secret = await issued(mailed, SECOND)
    for _ in range(5):
        assert not await mailed.use_code(SECOND, another(secret.code), BROWSER)
    assert not await mailed.use_code(SECOND, secret.code, BROWSER)


async def test_the_code_of_a_second_step_ends_others(mailed: MailedSecrets) -> None:
    """Using it ends the other secrets of its user, and of no other user."""
    reset, other = await issued(mailed), await issued(mailed, replace(RESET, subject="bob"), "browser-2")
    secret = await issued(mailed, SECOND)
    assert not await mailed.use_code(SECOND, another(secret.code), BROWSER)
    assert await mailed.present("reset_password", token=reset.token) is not None
    assert await mailed.use_code(SECOND, secret.code, BROWSER)
    assert await mailed.present("reset_password", token=reset.token) is None
    assert await mailed.present("reset_password", token=other.token) is not None


@pytest.mark.parametrize("kind", ["right", "wrong"])
async def test_codes_of_a_second_step_at_once(store: Store, clock: Clock, kind: str) -> None:
    """Of many right codes at the same time one succeeds, and wrong ones use the five tries up, on each store."""
    mailed = MailedSecrets(store, mailing_keys(KEY), clock=clock)
    secret = await issued(mailed, SECOND)
    code = secret.code if kind == "right" else another(secret.code)
    used = []
    for _ in range(5):
        used += await asyncio.gather(*(mailed.use_code(SECOND, code, BROWSER) for _ in range(6)))
    assert used.count(True) == (kind == "right")
    assert not await mailed.use_code(SECOND, secret.code, BROWSER)


async def test_no_more_than_five_at_once(store: Store, clock: Clock) -> None:
    """Of many wrong codes at the same time no more than five are compared, on each store."""
    mailed = MailedSecrets(store, mailing_keys(KEY), clock=clock)
    secret = await issued(mailed)
    wrong = another(secret.code)
    for _ in range(5):
        await asyncio.gather(*(mailed.present("reset_password", code=wrong, handle=BROWSER) for _ in range(6)))
    assert await mailed.present("reset_password", code=secret.code, handle=BROWSER) is None


async def test_issued_many_times_at_once(store: Store, clock: Clock) -> None:
    """Of many that are issued under one handle at the same time one is valid, on each store."""
    mailed = MailedSecrets(store, mailing_keys(KEY), clock=clock)
    many = await asyncio.gather(*(mailed.issue(RESET, BROWSER) for _ in range(3)))
    valid = [
        await mailed.present("reset_password", token=secret.token) is not None for secret in many if secret is not None
    ]
    assert valid.count(True) == 1


async def test_issued_while_the_one_before_is_used(clock: Clock) -> None:
    """A secret is issued also where the one of before under its handle is used up at the same time."""
    store = CountingStore(MemoryStore(clock=clock))
    mailed = MailedSecrets(store, mailing_keys(KEY), clock=clock)
    before = await issued(mailed)
    presented = await mailed.present("reset_password", token=before.token)
    assert presented is not None
    store.before["get"] = lambda: mailed.use(presented)
    secret = await issued(mailed)
    assert await mailed.present("reset_password", token=secret.token) is not None
    assert await mailed.present("reset_password", token=before.token) is None


class Vanishing(MemoryStore):
    """A store in which another process always acts in between."""

    async def add(self, record: Any) -> bool:
        """Do as if the key were taken."""
        return False

    async def get(self, *keys: str) -> list[Any]:
        """Find nothing."""
        return [None for _ in keys]


async def test_always_contended(clock: Clock) -> None:
    """A secret that cannot be stored is not issued."""
    assert await MailedSecrets(Vanishing(clock=clock), mailing_keys(KEY), clock=clock).issue(RESET, BROWSER) is None


@pytest.mark.parametrize(
    ("page", "in_query", "link"),
    [
        ("https://a.example/reset", False, "https://a.example/reset#token=T"),
        ("https://a.example/reset", True, "https://a.example/reset?token=T"),
        ("https://a.example/reset?lang=de", True, "https://a.example/reset?lang=de&token=T"),
    ],
)
def test_links(page: str, in_query: bool, link: str) -> None:
    """A link has its secret in the fragment, or in the query."""
    assert link_to(page, "T", in_query=in_query) == link
