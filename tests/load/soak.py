"""Two minutes under load in which keys change, tokens end, and the issuer and the database go away and come back.

wrk sends throughout: credentials that hold on most connections, and such that do not on some. Beside it each of them is
sent once a second and its answer compared, so that it is known which one was answered wrongly, and when.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx2

from benchmarks.core import tamper
from benchmarks.report import machine, show
from fastapi_guard import demo
from fastapi_guard.api_key.format import KeyFormat
from fastapi_guard.testing.issuer import FakeIssuer
from servers.postgres import PostgresServer

from . import wrk
from .applications import AUDIENCE, CONNECTIONS, SOAKED
from .process import Served, served
from .wrk import Request

WARM_UP_SECONDS, SECONDS = 20, 120
# Of the connections of those that hold.
REFUSED_CONNECTIONS = 2
# How long after its return something may still be answered as away: the pause between two attempts, and one attempt.
RECOVERY_SECONDS = 5
GROWTH = 1.05
SAMPLES = 5
OF_PATH = {"/issued": "issuer", "/me": "database"}


@dataclass
class Away:
    """When something was away, in seconds since the epoch, and how often a request was therefore answered 503."""

    begin: float = float("inf")
    end: float = float("inf")
    unavailable: int = 0

    def covers(self, moment: float) -> bool:
        """Return whether an answer of this moment may be 503."""
        return self.begin <= moment <= self.end + RECOVERY_SECONDS


@dataclass
class Found:
    """What the soak found.

    Attributes:
        away: The outages, by what was away.
        faults: What should not have been, each in a sentence.
        resident_bytes: The memory of the server, once a second, and the second counted from the end of the warm-up.
    """

    away: Mapping[str, Away] = field(default_factory=lambda: {name: Away() for name in OF_PATH.values()})
    faults: list[str] = field(default_factory=list)
    resident_bytes: list[tuple[float, int]] = field(default_factory=list)

    def memory(self) -> tuple[float, float, float]:
        """Return the median before the end of the warm-up, the most after it, and the median at the end, in bytes."""
        before = [size for second, size in self.resident_bytes if second < 0]
        after = [size for second, size in self.resident_bytes if second >= 0]
        return median(before[-SAMPLES:]), max(after), median(after[-SAMPLES:])

    def judge(self, accepted: wrk.Answers, refused: wrk.Answers, log: str) -> None:
        """Find the faults in what wrk was answered, in the memory, and in what the server wrote."""
        for name, answers, expected in (("holds", accepted, 200), ("does not hold", refused, 401)):
            for second, statuses in answers.by_second.items():
                # The second of an answer begins up to a second before it.
                away = any(each.covers(second) or each.covers(second + 1) for each in self.away.values())
                wrong = {status: count for status, count in statuses.items() if status not in {expected, away * 503}}
                if wrong:
                    self.faults.append(f"what {name} was answered {wrong} in the second {second}")
            if answers.lost:
                self.faults.append(f"{answers.lost} requests with what {name} had no answer")
        self.faults += [
            f"nothing was seen of the {name} being away" for name, each in self.away.items() if not each.unavailable
        ]
        before, _, after = self.memory()
        if after > before * GROWTH:
            self.faults.append(f"the memory of the server grew by {after / before - 1:.1%}")
        if "Traceback" in log:
            self.faults.append(f"the server wrote:\n{log[log.index('Traceback') - 200 :][:4000]}")


class Soak:
    """Who sends, changes, revokes and takes away, and what is found by that."""

    def __init__(self, application: Served, issuer: FakeIssuer, server: PostgresServer, folder: Path) -> None:
        """Log in, make keys, and list for wrk what holds and what does not."""
        self.found = Found()
        self.files = {"accepted": folder / "accepted.txt", "refused": folder / "refused.txt"}
        self._application, self._issuer, self._server = application, issuer, server
        self._http = httpx2.Client(base_url=application.url, timeout=15)
        self._outage = ExitStack()
        self._refreshed: list[str] = []
        self._key_ids: dict[str, str] = {}
        self._first_kid = issuer.kid
        self._accepted: dict[str, Request] = {}
        self._leaving: dict[str, Request] = {}
        self._first_refresh = self._refresh = ""
        for name in demo.PASSWORDS:
            self._login(name, name)
        for name in ("key", "key to revoke", "key to rotate"):
            made = self._ask("POST", "/keys", {"scopes": ["posts:read"]}, by="grace")
            self._keep_key(name, made)
        self._accepted["issued"] = Request(path="/issued", credential=f"Bearer {issuer.token(scope='items:read')}")
        self._refused = self._never_accepted()
        self._write()

    def _never_accepted(self) -> dict[str, Request]:
        other, scope = FakeIssuer(audience=AUDIENCE), {"scope": "items:read"}
        tokens = {
            "of a key that nobody has": other.token(iss=self._issuer.url, **scope),
            "expired": self._issuer.token(expires_in=-60, **scope),
            "for another audience": self._issuer.token(aud="https://other.example", **scope),
        }
        own = {
            "nothing": "",
            "tampered": tamper(self._accepted["grace"].credential),
            "an unknown key": f"Bearer {KeyFormat().generate().raw}",
            "what is no key": "Bearer sk-0",
        }
        issued = {name: Request(path="/issued", credential=f"Bearer {token}") for name, token in tokens.items()}
        return issued | {name: Request(path="/me", credential=credential) for name, credential in own.items()}

    def schedule(self) -> list[tuple[float, Callable[[], None]]]:
        """Return what happens, and at which second after the warm-up.

        What is going to be refused is not sent any more some seconds before: so wrk never has it under way.
        """
        return [
            (5, self.rotate),
            (12, lambda: None if self._issuer.rotate() else None),
            (18, self.issue_with_the_new_key),
            (22, lambda: self.leave("grace", "key to revoke")),
            (25, self.revoke),
            (28, lambda: self.leave("ada", "alan")),
            (31, self.withdraw),
            (38, self.begin_outage),
            (58, self.end_outage),
            (68, self.stop_database),
            (74, self.start_database),
            (82, lambda: self.leave("key to rotate")),
            (85, self.rotate_key),
            (90, lambda: self.leave("issued")),
            (93, lambda: self._issuer.withdraw(self._first_kid)),
            (100, lambda: self.refuse("issued")),
            (105, self.replay),
        ]

    def look(self, second: float) -> None:
        """Send everything once, and compare the answers; refresh a token; read the memory of the server."""
        for requests, expected in ((self._accepted, 200), (self._refused, 401)):
            for name, request in requests.items():
                self._compare(name, request, expected, second)
        self._rotate_refresh_token(second)
        self.found.resident_bytes.append((second, self._application.resident_bytes))

    def rotate(self) -> None:
        """Sign with another key; what the old one signed still holds."""
        self._ask("POST", "/rotate", by="ada")
        for name in demo.PASSWORDS:
            self._login(name, f"{name}, second key")
        self._write()

    def issue_with_the_new_key(self) -> None:
        """Accept what the issuer's new key signed, some seconds after it was published."""
        token = self._issuer.token(scope="items:read")
        self._accepted["issued, second key"] = Request(path="/issued", credential=f"Bearer {token}")
        self._write()

    def revoke(self) -> None:
        """Revoke a token and a key."""
        token = self._leaving["grace"].credential.removeprefix("Bearer ")
        self._http.post("/token/revoke", data={"token": token}).raise_for_status()
        self._ask("DELETE", f"/keys/{self._key_ids['key to revoke']}", by="grace, second key")
        self.refuse("grace", "key to revoke")

    def withdraw(self) -> None:
        """Forget the first signing key."""
        self._ask("POST", "/rotate?withdraw=true", by="ada, second key")
        self.refuse("ada", "alan")

    def rotate_key(self) -> None:
        """Put an API key in the place of another at once."""
        path = f"/keys/{self._key_ids['key to rotate']}/rotate"
        self._keep_key("rotated key", self._ask("POST", path, {}, by="grace, second key"))
        self.refuse("key to rotate")

    def begin_outage(self) -> None:
        """Take the issuer away."""
        self.found.away["issuer"].begin = time.time()
        self._outage.enter_context(self._issuer.outage())

    def end_outage(self) -> None:
        """Bring it back."""
        self._outage.close()
        self.found.away["issuer"].end = time.time()

    def stop_database(self) -> None:
        """Take PostgreSQL away."""
        self.found.away["database"].begin = time.time()
        self._server.stop()

    def start_database(self) -> None:
        """Bring it back."""
        self._server.start()
        self.found.away["database"].end = time.time()

    def replay(self) -> None:
        """Use a refresh token again, long after it was used: it is refused, and so is its successor from then on."""
        for name, token in (("a used refresh token", self._first_refresh), ("its successor", self._refresh)):
            status = self._http.post("/token/refresh", data={"refresh_token": token}).status_code
            if status != 401:
                self.found.faults.append(f"{name} was answered {status}")
        self._login("grace", "grace, third login")
        self._write()

    def leave(self, *names: str) -> None:
        """Send them no more."""
        self._leaving |= {name: self._accepted.pop(name) for name in names}
        self._write()

    def refuse(self, *names: str) -> None:
        """Expect 401 for them from now on."""
        for name in names:
            self._refused[name] = self._leaving.pop(name)
            self._compare(name, self._refused[name], 401, None)
        self._write()

    def _login(self, username: str, name: str) -> None:
        form = {"username": username, "password": demo.PASSWORDS[username]}
        pair = self._http.post("/token", data=form).raise_for_status().json()
        self._accepted[name] = Request(path="/me", credential=f"Bearer {pair['access_token']}")
        self._refresh = pair["refresh_token"]

    def _rotate_refresh_token(self, second: float) -> None:
        answer = self._http.post("/token/refresh", data={"refresh_token": self._refresh})
        if answer.status_code == 200:
            self._first_refresh = self._first_refresh or self._refresh
            self._refresh = answer.json()["refresh_token"]
            name = f"refreshed at {second:.0f} s"
            self._accepted[name] = Request(path="/me", credential=f"Bearer {answer.json()['access_token']}")
            self._refreshed.append(name)
            if len(self._refreshed) > SAMPLES:
                self._accepted.pop(self._refreshed.pop(0))
            self._write()
        elif answer.status_code != 503 or not self.found.away["database"].covers(time.time()):
            self.found.faults.append(f"a refresh was answered {answer.status_code} at {second:.0f} s")

    def _keep_key(self, name: str, made: Mapping[str, Any]) -> None:
        self._key_ids[name] = made["key_id"]
        self._accepted[name] = Request(path="/me", credential=f"Bearer {made['key']}")

    def _ask(self, method: str, path: str, body: object = None, *, by: str) -> Any:
        headers = {"Authorization": self._accepted[by].credential}
        answer = self._http.request(method, path, json=body, headers=headers).raise_for_status()
        return answer.json() if answer.content else None

    def _compare(self, name: str, request: Request, expected: int, second: float | None) -> None:
        headers = {"Authorization": request.credential} if request.credential else {}
        answer, away = self._http.get(request.path, headers=headers), self.found.away[OF_PATH[request.path]]
        if answer.status_code == 503 and away.covers(time.time()) and "Retry-After" in answer.headers:
            away.unavailable += 1
        elif answer.status_code != expected:
            when = "when it ended" if second is None else f"at {second:.0f} s"
            self.found.faults.append(f"{name} was answered {answer.status_code} {when}, not {expected}")

    def _write(self) -> None:
        wrk.write(self.files["accepted"], self._accepted.values())
        wrk.write(self.files["refused"], self._refused.values())


def run(path: Path, server: PostgresServer, postgres: str, *, core: int | None) -> int:
    """Soak, print and write what was found; return 1 where that is a fault."""
    issuer = FakeIssuer(audience=AUDIENCE)
    with tempfile.TemporaryDirectory() as folder, issuer.serve() as url:
        errors = Path(folder, "errors.txt")
        with served(SOAKED, postgres=postgres, issuer=url, core=core, errors=errors) as application:
            soak = Soak(application, issuer, server, Path(folder))
            accepted, refused = _loaded(soak, application.url)
        soak.found.judge(accepted, refused, errors.read_text(encoding="utf-8"))
    _report(path, soak.found, accepted, refused)
    return 1 if soak.found.faults else 0


def _loaded(soak: Soak, url: str) -> tuple[wrk.Answers, wrk.Answers]:
    seconds = WARM_UP_SECONDS + SECONDS
    loading = [
        wrk.start(url, soak.files[name], connections=connections, seconds=seconds)
        for name, connections in (("accepted", CONNECTIONS), ("refused", REFUSED_CONNECTIONS))
    ]
    start, schedule = time.monotonic() + WARM_UP_SECONDS, soak.schedule()
    while (second := time.monotonic() - start) < SECONDS:
        if schedule and schedule[0][0] <= second:
            schedule.pop(0)[1]()
        soak.look(second)
        time.sleep(max(0.0, 1 - (time.monotonic() - start - second)))
    accepted, refused = map(wrk.finished, loading)
    return accepted, refused


def _report(path: Path, found: Found, accepted: wrk.Answers, refused: wrk.Answers) -> None:
    rows = []
    for name, answers in (("holds", accepted), ("does not hold", refused)):
        statuses = Counter(answers.statuses)
        counts = (str(statuses[status]) for status in (200, 401, 503))
        rest = sum(statuses.values()) - statuses[200] - statuses[401] - statuses[503]
        rows.append((name, f"{answers.requests_a_second:.0f}", *counts, str(rest), f"{answers.p99_ms:.1f}"))
    show(("a credential that", "requests/s", "200", "401", "503", "else", "p99 ms"), rows)
    before, most, after = (size / 2**20 for size in found.memory())
    print(f"memory of the server: {before:.1f} MiB after the warm-up, at most {most:.1f}, {after:.1f} at the end")
    for name, away in found.away.items():
        print(f"{name} away for {away.end - away.begin:.1f} s: {away.unavailable} of our own requests answered 503")
    written = {
        "machine": machine(),
        "statuses": {"accepted": accepted.by_second, "refused": refused.by_second},
        "away": {name: asdict(each) for name, each in found.away.items()},
        "resident_bytes": found.resident_bytes,
        "faults": found.faults,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1), encoding="utf-8")
    print("written to", path)
    print(*found.faults or ["no fault was found"], sep="\n")
