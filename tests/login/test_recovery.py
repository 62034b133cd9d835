import asyncio
import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from fastapi_guard import ConfigurationError, ServiceUnavailable
from fastapi_guard.login.enrolled import EnrolledFactor, StoredFactors
from fastapi_guard.login.factor import Strength
from fastapi_guard.login.recovery import RecoveryCodes
from fastapi_guard.stores import MemoryStore, Store
from support.clock import Clock
from support.factors import Desk


@pytest.fixture
def desk(clock: Clock) -> Desk:
    """Return a desk with recovery codes in memory."""
    return Desk(RecoveryCodes(), MemoryStore(clock=clock), clock)


async def enrolled_codes(desk: Desk) -> list[str]:
    """Enrol codes, in place of those of before."""
    before = (await desk.context()).enrolled
    enrolment = await desk.begin()
    assert enrolment.is_complete
    if before:
        assert await desk.records.replace(before[0], enrolment.factor)
    else:
        assert await desk.records.add(enrolment.factor)
    codes: list[str] = enrolment.shown["codes"]
    return codes


async def test_codes(desk: Desk) -> None:
    """There are ten codes of 125 bits, no two alike, and none of them is stored."""
    codes = await enrolled_codes(desk)
    assert len(set(codes)) == 10
    for code in codes:
        assert re.fullmatch("[0-9a-hjkmnp-tv-z]{5}(-[0-9a-hjkmnp-tv-z]{5}){4}", code)
        # No group repeats what is in the one before it: each has random bits of its own.
        assert not all(group[1:] == following[:-1] for group, following in pairwise(code.split("-")))
    [stored] = await desk.records.of("ada")
    assert not any(code in stored.data or code.replace("-", "") in stored.data for code in codes)
    assert len(json.loads(stored.data)["codes"]) == 10
    assert desk.factor.strength is Strength.RECOVERY


async def test_each_code_is_valid_once(desk: Desk) -> None:
    """A code is accepted once, and the others go on to be."""
    codes = await enrolled_codes(desk)
    for code in codes:
        proof = await desk.verify({"code": code})
        assert proof is not None
        assert proof.methods == ("recovery",)
        assert await desk.verify({"code": code}) is None
    assert not desk.factor.usable(desk.user, (await desk.context()).enrolled)


async def test_remaining(desk: Desk) -> None:
    """A list shows how many codes are left."""
    factor = RecoveryCodes(count=3)
    desk.factor = factor
    codes = await enrolled_codes(desk)
    assert factor.usable(desk.user, (await desk.context()).enrolled)
    assert factor.describe((await desk.context()).enrolled[0]) == {"remaining": 3}
    await desk.verify({"code": codes[0]})
    assert factor.describe((await desk.context()).enrolled[0]) == {"remaining": 2}


async def test_enrolling_again_replaces(desk: Desk) -> None:
    """New codes invalidate all that were left, under the same id."""
    old = await enrolled_codes(desk)
    new = await enrolled_codes(desk)
    assert [await desk.verify({"code": code}) for code in old] == [None] * 10
    assert await desk.verify({"code": new[0]}) is not None
    assert len(await desk.records.of("ada")) == 1


@pytest.mark.parametrize(
    "spelled",
    [
        lambda code: code.upper(),
        lambda code: code.replace("-", ""),
        lambda code: f"  {code.replace('-', ' ')}\n",
        lambda code: code.replace("0", "o").replace("1", "l"),
        lambda code: code.replace("0", "O").replace("1", "I"),
        lambda code: code.ljust(128),
    ],
    ids=["upper", "plain", "spaces", "letters", "capitals", "long"],
)
async def test_spellings(desk: Desk, spelled: Any) -> None:
    """Case, grouping, white space and characters that look alike make no difference."""
    codes = await enrolled_codes(desk)
    assert await desk.verify({"code": spelled(codes[0])}) is not None


@pytest.mark.parametrize(
    "proof",
    [
        {},
        {"code": None},
        {"code": ""},
        {"code": 12345},
        {"code": ["x"]},
        {"code": {"a": 1}},
        {"code": "\ud800" * 25},
        {"code": "\0" * 25},
        {"code": "x" * 25},
        {"code": "x" * 1_000_000},
        {"codes": "x"},
    ],
)
async def test_malformed(desk: Desk, proof: dict[str, Any]) -> None:
    """Anything that is not a code is refused, without an exception, and every code stays valid."""
    codes = await enrolled_codes(desk)
    assert await desk.verify(proof) is None
    assert await desk.verify({"code": codes[9]}) is not None


async def test_a_truncated_code(desk: Desk) -> None:
    """A part of a code, a code with more behind it and two codes in one are refused."""
    codes = await enrolled_codes(desk)
    for text in (codes[0][:-1], codes[0] + "0", codes[0] + codes[1], codes[0].ljust(129)):
        assert await desk.verify({"code": text}) is None


async def test_a_code_of_another_user(desk: Desk, clock: Clock) -> None:
    """A code of one user is nothing to another, even where both have the same id of a factor."""
    codes = await enrolled_codes(desk)
    other = Desk(RecoveryCodes(), MemoryStore(clock=clock), clock)
    await enrolled_codes(other)
    assert await other.verify({"code": codes[0]}) is None


async def test_confirm_is_nothing(desk: Desk) -> None:
    """There is nothing to confirm, and no challenge."""
    enrolment = await desk.begin()
    assert await desk.confirm(enrolment, {"code": enrolment.shown["codes"][0]}) is None
    assert await desk.challenge() == {}


async def test_one_code_many_times_at_once(store: Store, clock: Clock) -> None:
    """Of many that present the same code at the same time one is accepted, on each store."""
    desk = Desk(RecoveryCodes(), store, clock)
    codes = await enrolled_codes(desk)
    context = await desk.context()
    proofs = await asyncio.gather(*(desk.factor.verify(context, {"code": codes[0]}) for _ in range(8)))
    assert sum(proof is not None for proof in proofs) == 1


async def test_different_codes_at_once(store: Store, clock: Clock) -> None:
    """Different codes at the same time are all accepted, on each store."""
    desk = Desk(RecoveryCodes(), store, clock)
    codes = await enrolled_codes(desk)
    context = await desk.context()
    proofs = await asyncio.gather(*(desk.factor.verify(context, {"code": code}) for code in codes[:4]))
    assert all(proof is not None for proof in proofs)
    assert RecoveryCodes().describe((await desk.context()).enrolled[0]) == {"remaining": 6}


async def test_removed_meanwhile(desk: Desk) -> None:
    """A code whose factor is removed while it is verified is refused."""
    codes = await enrolled_codes(desk)
    context = await desk.context()
    await desk.records.remove("f1")
    assert await desk.factor.verify(context, {"code": codes[0]}) is None


class Contended(StoredFactors):
    """Storage in which another process is always faster."""

    async def replace(self, expected: EnrolledFactor, new: EnrolledFactor) -> bool:
        """Change the factor before the caller does."""
        current = await self.get(expected.id)
        assert current is not None
        await super().replace(current, replace(current, name=current.name + "'"))
        return False


async def test_always_contended(clock: Clock) -> None:
    """A factor that changes again and again is a 503, not a wrong code."""
    store = MemoryStore(clock=clock)
    desk = Desk(RecoveryCodes(), store, clock)
    codes = await enrolled_codes(desk)
    desk.records = Contended(store)
    with pytest.raises(ServiceUnavailable) as refused:
        await desk.verify({"code": codes[0]})
    assert refused.value.reason == "contended"


@pytest.mark.parametrize(
    ("count", "named"),
    [(0, "0"), (-1, "-1"), (51, "51"), (True, "True"), ("10", "text of 2 characters"), (2.5, "2.5")],
)
def test_count(count: Any, named: str) -> None:
    """The number of codes is bounded."""
    with pytest.raises(ConfigurationError) as error:
        RecoveryCodes(count=count)
    assert str(error.value) == f"count is a number of recovery codes from 1 to 50, not {named}"


@pytest.mark.parametrize("count", [1, 50])
async def test_the_fewest_and_the_most(clock: Clock, count: int) -> None:
    """One code is enough, and 50 are the most."""
    assert len(await enrolled_codes(Desk(RecoveryCodes(count=count), MemoryStore(clock=clock), clock))) == count


async def test_the_use_is_dated(desk: Desk, clock: Clock) -> None:
    """The factor has the moment of its last use, in the store and in the proof."""
    codes = await enrolled_codes(desk)
    clock.move(60)
    proof = await desk.verify({"code": codes[0]})
    [stored] = await desk.records.of("ada")
    assert proof is not None
    assert proof.factor == stored
    assert stored.used_at == clock()
