"""The events of a soak: keys change, credentials are issued and ended, servers stop and start, workers are replaced."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import httpx2
import psycopg
from psycopg import sql

from benchmarks.core import tamper
from fastapi_guard.api_key.format import KeyFormat
from fastapi_guard.api_key.models import APIKey
from fastapi_guard.events.trail import read_trail
from fastapi_guard.testing.issuer import FakeIssuer
from support.postgres import PostgresServer

from .found import Away, Found
from .kept_redis import KeptRedis
from .mix import Mix, Sent
from .soaked import ADMIN, ATTEMPTS, AUDIENCE, BROWSER, COOKIE, ISSUED, OWN, Places, demo
from .workers import Workers
from .wrk import Request

Step = tuple[float, Callable[[], object]]

ISSUER, DATABASE, REDIS = "issuer", "PostgreSQL", "Redis"
REFRESHED_KEPT, REFUSED_KEPT, USES, QUOTA = 4, 12, 6, 100_000
# The status of a wrong password and of an invalid refresh token (RFC 6749 5.2).
INVALID_GRANT = 400
# The field that each refusal has to have.
FIELDS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}


class Scenario:
    """Logs in, changes, revokes, stops servers, replaces workers, and compares the answers."""

    def __init__(
        self, workers: Workers, issuer: FakeIssuer, postgres: PostgresServer, redis: KeptRedis, places: Places
    ) -> None:
        """Begin with credentials that are refused, and with limits that are reached."""
        self.found, self.mix = Found(), Mix(places.folder)
        self._workers, self._issuer, self._postgres, self._redis = workers, issuer, postgres, redis
        self._places = places
        # A connection for each request: one that stays would be to one worker.
        self._http = httpx2.Client(base_url=workers.url, timeout=15, limits=httpx2.Limits(max_keepalive_connections=0))
        self._outage = ExitStack()
        # The events that have to be in the audit trail, and those that may be there.
        self._events: Counter[str] = Counter()
        self._unclear: Counter[str] = Counter()
        self._key_ids: dict[str, str] = {}
        self._refreshed: list[str] = []
        self._families: dict[str, str] = {}
        self._used_refresh_token = self._refresh_token = ""
        self._adds_refreshed = True
        self._archive: dict[str, Sent] = {}
        self._marked: list[str] = []
        self._to_mark: dict[str, str] = {}
        self._issued: list[tuple[str, str]] = []
        self._ended: list[str] = []
        self._spent = self._uncertain = 0
        self._by = self._log_in("ada", "token of the start")
        self._refuse()
        self._limit()

    def _refuse(self) -> None:
        stranger = FakeIssuer(audience=AUDIENCE)
        self._accept_issued()
        for name, token in {
            "signed by a stranger": stranger.token(scope="items:read", iss=self._issuer.url),
            "expired": self._issuer.token(scope="items:read", expires_in=-60),
            "for another audience": self._issuer.token(scope="items:read", aud="https://other.example"),
        }.items():
            self._send(name, ISSUED, token, (ISSUER,), expected=401)
        tampered = tamper(self._by.removeprefix("Bearer ")).removeprefix("Bearer ")
        for name, raw, needs in (
            ("tampered", tampered, ()),
            ("a key that nobody has", KeyFormat().generate().raw, (DATABASE,)),
            ("a text of another form", "sk-0", ()),
        ):
            self._send(name, OWN, raw, needs, expected=401)
        self.mix.send("nothing", Request(path=OWN, credential=""), 401, ())

    def _limit(self) -> None:
        made = self._new_key(quota=1)
        self._send("a key whose quota is used up", OWN, made["key"], (DATABASE, REDIS), expected=429)
        self._http.get(OWN, headers={"Authorization": f"Bearer {made['key']}"}).raise_for_status()
        self._send("a key without the scope", ADMIN, self._new_key()["key"], (DATABASE,), expected=403)
        self._quota = self._new_key(quota=QUOTA)
        for _ in range(ATTEMPTS):
            self._expect(self._attempt(), INVALID_GRANT, "a wrong password")

    def schedule(self, rounds: int) -> list[Step]:
        """Return what happens, each with the seconds since what happened before.

        A busy machine stretches them, and never shortens them: what was published has been fetched before it is used,
        and wrk has heard of what is not to be sent any more before that ends.
        """
        steps: list[Step] = []
        for number in range(rounds):
            steps += self._round(
                number,
                is_reloaded=number == rounds // 3,
                is_replaced=number == rounds * 2 // 3,
                is_withdrawn=number % 2 == 1 or rounds == 1,
            )
        return steps

    def _round(self, number: int, *, is_reloaded: bool, is_replaced: bool, is_withdrawn: bool) -> Iterator[Step]:
        yield 2, partial(self.issue, number)
        yield 4, self._rotate
        yield 3, partial(self._again, number)
        yield 4, self._issuer.rotate
        yield 6, self._accept_issued
        yield 2, partial(self._leave, number)
        yield 3, self._end
        yield 2, self._refuse_ended
        if is_reloaded:
            yield from self._replaced(self._workers.reload)
            yield 4, self._workers.kill
            yield 6, self._workers.look
        if is_replaced:
            yield from self._replaced(self._workers.replace)
        yield 5, partial(self._stop, ISSUER, self._break_off)
        if is_replaced:
            yield from self._replaced(self._workers.replace)
        yield 18, partial(self._start, self._outage.close)
        if is_replaced:
            yield 3, self._prepare_uses
        yield 8, partial(self._stop, REDIS, self._redis.stop)
        if is_replaced:
            yield 3, partial(self._mark, self._workers.replace)
        yield 6, partial(self._start, self._redis.start)
        yield 8, partial(self._stop, DATABASE, self._postgres.stop)
        if is_replaced:
            yield 3, self._workers.replace
        yield 6, partial(self._start, self._postgres.start)
        if is_replaced:
            yield 3, self._check_uses
        if is_withdrawn:
            yield 5, self._leave_tokens
            yield 3, self._withdraw
            yield 3, partial(self._refuse_tokens, number)
        yield 4, self._leave_issued
        yield 3, lambda: self._issuer.withdraw(self._issued[0][1])
        yield 7, self._refuse_issued
        yield 3, self._replay
        yield 2, self._continue_families

    def _replaced(self, replace: Callable[[], None]) -> Iterator[Step]:
        yield 3, self._prepare_uses
        yield 3, partial(self._mark, replace)
        yield 8, self._check_uses

    def look(self) -> None:
        """Send everything once, and compare the answers; refresh a token; use up a quota; note the memory."""
        for name, sent in self.mix:
            self._compare(name, sent)
        self._refresh()
        self._spend()
        self._expect(self._attempt(), 429, "a login after too many attempts", (DATABASE, REDIS))
        self._workers.look()

    def finish(self) -> None:
        """Stop the workers and start them: nothing that was issued, ended, counted or noted is lost with them."""
        self._prepare_uses()
        self._mark(self._workers.stop)
        self._check_uses()
        self._workers.start()
        for name, sent in (self._archive | dict(self.mix)).items():
            self._compare(name, sent)
            self.found.checked[str(sent.expected)] = self.found.checked.get(str(sent.expected), 0) + 1
        self._continue_families()
        self.found.checked["families"] = len(self._families)
        self._expect(self._attempt(), 429, "a login after too many attempts, at the end")
        self._judge_quota()
        self._workers.stop()
        self._judge_trail()

    def issue(self, number: int) -> None:
        """Log in, make keys, begin sessions: some are kept, and some are ended in this round."""
        self._by = self._log_in("ada", f"token {number}")
        self._log_in("grace", f"token to revoke {number}")
        self._log_in("alan", f"token to log out {number}")
        self._log_in("grace", f"token of a family that is used seldom {number}")
        raw = self.mix.raw(f"token of a family that is used seldom {number}")
        self._send(f"token without the scope {number}", ADMIN, raw, (REDIS,), expected=403)
        self._refresh_token = self._families.pop(f"token {number}")
        self._used_refresh_token = ""
        for name in (f"key {number}", f"key to revoke {number}", f"key to rotate {number}"):
            self._keep_key(name, self._new_key())
        self._send(f"key without the scope {number}", ADMIN, self.mix.raw(f"key {number}"), (DATABASE,), expected=403)
        for name in (f"session {number}", f"session to log out {number}"):
            self._begin_session(name)

    def _rotate(self) -> None:
        """Sign with another key of our own; what the first one signed is still valid."""
        self._places.keys.rotate(keep=timedelta(hours=1))

    def _again(self, number: int) -> None:
        self._by = self._log_in("ada", f"token of the second key {number}")
        del self._families[f"token of the second key {number}"]

    def _leave(self, number: int) -> None:
        kinds = ("token to revoke", "token to log out", "key to revoke", "key to rotate", "session to log out")
        self._ended = [f"{kind} {number}" for kind in kinds]
        self.mix.leave(self._ended)

    def _end(self) -> None:
        token, other, key, rotated, session = self._ended
        self._ask("POST", "/token/revoke", data={"token": self.mix.raw(token)})
        del self._families[token]
        self._events["token_revoked"] += 1
        self._ask("POST", "/logout", by=f"Bearer {self.mix.raw(other)}")
        self._events["token_revoked"] += 1
        answer = self._http.post("/token/refresh", data={"refresh_token": self._families.pop(other)})
        self._expect(answer, INVALID_GRANT, "the refresh token of a login that was ended")
        self._ask("DELETE", f"/keys/{self._key_ids[key]}", by=self._by)
        self._events["key_revoked"] += 1
        replaced = self._ask("POST", f"/keys/{self._key_ids[rotated]}/rotate", json={}, by=self._by)
        self._events.update(("key_rotated", "key_created"))
        self._keep_key(f"key in place of {rotated}", replaced)
        cookie = self.mix.cookie(session)
        self._http.post("/browser/logout", headers={"Cookie": cookie}).raise_for_status()
        self._events["session_ended"] += 1

    def _refuse_ended(self) -> None:
        self.mix.end(self._ended)
        refused = [name for name in self.mix.names("", expected=401) if name[-1].isdigit()]
        self._put_away(refused[:-REFUSED_KEPT])

    def _put_away(self, names: list[str]) -> None:
        # Not sent again before the end.
        sent = dict(self.mix)
        self._archive |= {name: sent[name] for name in names}
        self.mix.drop(names)

    def _leave_tokens(self) -> None:
        self._adds_refreshed = False
        self._ended = [*self.mix.names("token"), *self.mix.names("token", expected=403), *self.mix.names("refreshed")]
        self._refreshed.clear()
        self.mix.leave(self._ended)

    def _withdraw(self) -> None:
        """Forget every key of our own."""
        for _ in range(2):
            self._places.keys.rotate(keep=timedelta())

    def _refuse_tokens(self, number: int) -> None:
        self._archive = {name: sent for name, sent in self._archive.items() if not name.startswith("token")}
        self._refuse_ended()
        self._adds_refreshed = True
        self._by = self._log_in("ada", f"token after the withdrawal {number}")

    def _accept_issued(self) -> None:
        name = f"issued {len(self._issued)} {self._issuer.kid}"
        self._issued.append((name, self._issuer.kid))
        self._send(name, ISSUED, self._issuer.token(scope="items:read"), (ISSUER,))

    def _leave_issued(self) -> None:
        self.mix.leave([self._issued[0][0]])

    def _refuse_issued(self) -> None:
        self.mix.end([self._issued.pop(0)[0]])

    def _stop(self, server: str, stop: Callable[[], object]) -> None:
        self.found.away.append(Away(server, time.time()))
        stop()

    def _start(self, start: Callable[[], object]) -> None:
        start()
        self.found.away[-1].end = time.time()

    def _break_off(self) -> None:
        """Let the issuer break off every connection."""
        self._outage.enter_context(self._issuer.outage())

    def _replay(self) -> None:
        """Use a refresh token again, long after it was used: it is refused, and so is its successor from then on."""
        for name, token in (("a used refresh token", self._used_refresh_token), ("its successor", self._refresh_token)):
            self._expect(self._http.post("/token/refresh", data={"refresh_token": token}), INVALID_GRANT, name)
        self._refresh_token = ""

    def _continue_families(self) -> None:
        """Refresh what was not refreshed for a round."""
        for name, token in self._families.items():
            answer = self._http.post("/token/refresh", data={"refresh_token": token})
            self._expect(answer, 200, f"the refresh token of {name}")
            if answer.status_code == 200:
                self._events["token_refreshed"] += 1
                self._families[name] = answer.json()["refresh_token"]

    def _prepare_uses(self) -> None:
        self._to_mark = {made["key_id"]: made["key"] for made in (self._new_key() for _ in range(USES))}

    def _mark(self, end: Callable[[], None]) -> None:
        """Use keys that were not used before, and have workers end before they have stored that."""
        for raw in self._to_mark.values():
            self._http.get(OWN, headers={"Authorization": f"Bearer {raw}"}).raise_for_status()
        end()
        self._marked += self._to_mark

    def _check_uses(self) -> None:
        keys = sql.Identifier(APIKey.__tablename__)
        statement = sql.SQL("SELECT key_id FROM {} WHERE last_used_at IS NULL AND key_id = ANY(%s)").format(keys)
        with psycopg.connect(self._places.postgres.replace("+asyncpg", "")) as connection:
            lost = connection.execute(statement, [self._marked]).fetchall()
        if lost:
            self.found.faults.append(f"the last uses of {len(lost)} keys of {len(self._marked)} were lost")
        self.found.uses += len(self._marked)
        self._marked.clear()

    def _judge_trail(self) -> None:
        written = Counter(str(event["event"]) for event in read_trail(self._places.trail))
        lines = len(self._places.trail.read_text(encoding="utf-8").splitlines())
        if lines != written.total():
            self.found.faults.append(f"{lines - written.total()} lines of the audit trail cannot be read")
        for name, count in self._events.items():
            # What a worker did that ended before its answer, or that answered 503 later, may be there too.
            if not count <= written[name] <= count + self._unclear[name]:
                self.found.faults.append(f"the audit trail has {name} {written[name]} times, not {count}")
        self.found.checked["events"] = self._events.total()

    def _compare(self, name: str, sent: Sent) -> None:
        request = sent.request
        headers = {request.field: request.credential} if request.credential else {}
        self._expect(self._sent("GET", request.path, headers=headers), sent.expected, name, sent.needs)

    def _expect(self, answer: httpx2.Response | None, expected: int, name: str, needs: tuple[str, ...] = ()) -> None:
        if answer is None:
            return
        now, status = time.time(), answer.status_code
        self.found.own[status] += 1
        if status in FIELDS and FIELDS[status] not in answer.headers:
            self.found.faults.append(f"{name}: {status} without {FIELDS[status]}")
        excuses = self.found.excusing(needs, now)
        if status == 503 and excuses:
            for away in excuses:
                away.unavailable += 1
                away.last = now
        elif status != expected:
            self.found.faults.append(f"{name}: answered {status}, not {expected}, at {now:.1f}")

    def _sent(self, method: str, path: str, **more: Any) -> httpx2.Response | None:
        """Send a request; return `None` where the worker that had it was told to end."""
        try:
            return self._http.request(method, path, **more)
        except httpx2.TransportError as error:
            if self._workers.may_break(time.time()):
                self.found.broken += 1
            else:
                self.found.faults.append(f"{method} {path}: {type(error).__name__} at {time.time():.1f}")
            return None

    def _attempt(self) -> httpx2.Response | None:
        return self._sent("POST", "/token", data={"username": "mallory", "password": "open-sesame-please"})

    def _spend(self) -> None:
        answer = self._sent("GET", OWN, headers={"Authorization": f"Bearer {self._quota['key']}"})
        status = 503 if answer is None else answer.status_code
        self._spent += status == 200
        # It may have been counted before the answer was lost.
        self._uncertain += status == 503
        self._expect(answer, 200, "a key with a quota", (DATABASE, REDIS))

    def _judge_quota(self) -> None:
        (state,) = self._ask("GET", f"/keys/{self._quota['key_id']}/usage", by=self._by)
        counted = QUOTA - state["remaining"]
        if not self._spent <= counted <= self._spent + self._uncertain:
            self.found.faults.append(f"{counted} requests were counted against a quota, not {self._spent}")
        self.found.checked["quota"] = counted

    def _refresh(self) -> None:
        if not self._refresh_token:
            return
        answer = self._sent("POST", "/token/refresh", data={"refresh_token": self._refresh_token})
        self._expect(answer, 200, "a refresh", (DATABASE, REDIS))
        if answer is None or answer.status_code != 200:
            self._unclear["token_refreshed"] += 1
            return
        self._events["token_refreshed"] += 1
        self._used_refresh_token = self._used_refresh_token or self._refresh_token
        self._refresh_token = answer.json()["refresh_token"]
        if self._adds_refreshed:
            name = f"refreshed at {time.time():.1f}"
            self._send(name, OWN, answer.json()["access_token"], (REDIS,))
            self._refreshed.append(name)
            if len(self._refreshed) > REFRESHED_KEPT:
                self.mix.drop([self._refreshed.pop(0)])

    def _log_in(self, username: str, name: str) -> str:
        form = {"username": username, "password": demo.PASSWORDS[username]}
        pair = self._ask("POST", "/token", data=form)
        self._events["login_succeeded"] += 1
        self._send(name, OWN, pair["access_token"], (REDIS,))
        self._families[name] = pair["refresh_token"]
        return f"Bearer {pair['access_token']}"

    def _begin_session(self, name: str) -> None:
        body = {"username": "grace", "password": demo.PASSWORDS["grace"]}
        answer = self._http.post("/browser/login", json=body).raise_for_status()
        self._events.update(("login_succeeded", "session_started"))
        request = Request(path=BROWSER, field="Cookie", credential=f"{COOKIE}={answer.cookies[COOKIE]}")
        self.mix.send(name, request, 200, (REDIS,))

    def _new_key(self, **more: object) -> Mapping[str, Any]:
        made: Mapping[str, Any] = self._ask("POST", "/keys", json={"scopes": ["posts:read"], **more}, by=self._by)
        self._events["key_created"] += 1
        return made

    def _keep_key(self, name: str, made: Mapping[str, Any]) -> None:
        self._key_ids[name] = made["key_id"]
        self._send(name, OWN, made["key"], (DATABASE,))

    def _send(self, name: str, path: str, raw: str, needs: tuple[str, ...], *, expected: int = 200) -> None:
        self.mix.send(name, Request(path=path, credential=f"Bearer {raw}"), expected, needs)

    def _ask(self, method: str, path: str, *, by: str = "", **more: Any) -> Any:
        headers = {"Authorization": by} if by else {}
        answer = self._http.request(method, path, headers=headers, **more).raise_for_status()
        return answer.json() if answer.content else None
