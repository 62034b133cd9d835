"""The events of a soak: keys change, tokens and API keys end, the issuer and the database go and come back."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.core import tamper
from fastapi_guard.api_key.format import KeyFormat
from fastapi_guard.testing.issuer import FakeIssuer
from support.postgres import PostgresServer

from .applications import AUDIENCE, demo
from .found import Away, Found
from .mix import Mix
from .process import Served

OWN, ISSUED = "/me", "/issued"
# Who has to be there to decide about a request.
NEEDED = {OWN: "database", ISSUED: "issuer"}
REFRESHED_KEPT = 5


class Scenario:
    """Logs in, changes, revokes, stops servers, and compares the answers."""

    def __init__(self, application: Served, issuer: FakeIssuer, server: PostgresServer, folder: Path) -> None:
        """Log in, make keys, and list what holds and what does not."""
        self.found = Found({name: Away() for name in NEEDED.values()})
        self.mix = Mix(folder)
        self._application, self._issuer, self._server = application, issuer, server
        self._http = httpx2.Client(base_url=application.url, timeout=15)
        self._outage = ExitStack()
        self._first_kid = issuer.kid
        self._key_ids: dict[str, str] = {}
        self._refreshed: list[str] = []
        self._used_refresh_token = ""
        for name in demo.PASSWORDS:
            self._refresh_token = self._log_in(name, name)
        for name in ("key", "key to revoke", "key to rotate"):
            self._keep_key(name, self._ask("POST", "/keys", {"scopes": ["posts:read"]}, by="grace"))
        self.mix.accept("issued", ISSUED, issuer.token(scope="items:read"))
        self._refuse()

    def _refuse(self) -> None:
        stranger = FakeIssuer(audience=AUDIENCE)
        for name, token in {
            "signed by a stranger": stranger.token(scope="items:read", iss=self._issuer.url),
            "expired": self._issuer.token(scope="items:read", expires_in=-60),
            "for another audience": self._issuer.token(scope="items:read", aud="https://other.example"),
        }.items():
            self.mix.refuse(name, ISSUED, f"Bearer {token}")
        for name, credential in {
            "nothing": "",
            "tampered": tamper(self.mix.credential("grace")),
            "a key that nobody has": f"Bearer {KeyFormat().generate().raw}",
            "what is no key": "Bearer sk-0",
        }.items():
            self.mix.refuse(name, OWN, credential)

    def schedule(self) -> list[tuple[float, Callable[[], object]]]:
        """Return what happens, each with the seconds since what happened before.

        A busy machine stretches them, and never shortens them: what was published has been fetched before it is used,
        and wrk has heard of what is not to be sent any more before that ends.
        """
        return [
            (5, self.rotate),
            (7, self._issuer.rotate),
            (6, lambda: self.mix.accept("issued, second key", ISSUED, self._issuer.token(scope="items:read"))),
            (4, lambda: self.mix.leave(["grace", "key to revoke"])),
            (3, self.revoke),
            (3, lambda: self.mix.leave(["ada", "alan"])),
            (3, self.withdraw),
            (7, self.take_issuer_away),
            (20, self.bring_issuer_back),
            (10, self.stop_database),
            (6, self.start_database),
            (8, lambda: self.mix.leave(["key to rotate"])),
            (3, self.rotate_key),
            (5, lambda: self.mix.leave(["issued"])),
            (3, lambda: self._issuer.withdraw(self._first_kid)),
            (7, lambda: self.mix.end(["issued"])),
            (5, self.replay),
        ]

    def look(self, second: float) -> None:
        """Send everything once, and compare the answers; refresh a token; read the memory of the server."""
        for name, request, expected in self.mix:
            headers = {"Authorization": request.credential} if request.credential else {}
            answer, away = self._http.get(request.path, headers=headers), self.found.away[NEEDED[request.path]]
            if answer.status_code == 503 and away.covers(time.time()) and "Retry-After" in answer.headers:
                away.unavailable += 1
            elif answer.status_code != expected:
                self.found.faults.append(f"{name}: answered {answer.status_code}, not {expected}, at {second:.1f} s")
        self._refresh(second)
        self.found.resident_bytes.append((second, self._application.resident_bytes))

    def rotate(self) -> None:
        """Sign with another key of our own; what the first one signed still holds."""
        self._ask("POST", "/rotate", by="ada")
        for name in demo.PASSWORDS:
            self._log_in(name, f"{name}, second key")

    def revoke(self) -> None:
        """Revoke a token and a key."""
        token = self.mix.credential("grace").removeprefix("Bearer ")
        self._http.post("/token/revoke", data={"token": token}).raise_for_status()
        self._ask("DELETE", f"/keys/{self._key_ids['key to revoke']}", by="grace, second key")
        self.mix.end(["grace", "key to revoke"])

    def withdraw(self) -> None:
        """Forget our first key."""
        self._ask("POST", "/rotate?withdraw=true", by="ada, second key")
        self.mix.end(["ada", "alan"])

    def rotate_key(self) -> None:
        """Put an API key in the place of another at once."""
        path = f"/keys/{self._key_ids['key to rotate']}/rotate"
        self._keep_key("rotated key", self._ask("POST", path, {}, by="grace, second key"))
        self.mix.end(["key to rotate"])

    def take_issuer_away(self) -> None:
        """Let the issuer break off every connection."""
        self.found.away["issuer"].begin = time.time()
        self._outage.enter_context(self._issuer.outage())

    def bring_issuer_back(self) -> None:
        """Let it answer again."""
        self._outage.close()
        self.found.away["issuer"].end = time.time()

    def stop_database(self) -> None:
        """Stop PostgreSQL."""
        self.found.away["database"].begin = time.time()
        self._server.stop()

    def start_database(self) -> None:
        """Start it again."""
        self._server.start()
        self.found.away["database"].end = time.time()

    def replay(self) -> None:
        """Use a refresh token again, long after it was used: it is refused, and so is its successor from then on."""
        for name, token in (("a used refresh token", self._used_refresh_token), ("its successor", self._refresh_token)):
            status = self._http.post("/token/refresh", data={"refresh_token": token}).status_code
            if status != 401:
                self.found.faults.append(f"{name}: answered {status}, not 401")
        self._refresh_token = self._log_in("grace", "grace, third login")

    def _log_in(self, username: str, name: str) -> str:
        form = {"username": username, "password": demo.PASSWORDS[username]}
        pair = self._http.post("/token", data=form).raise_for_status().json()
        self.mix.accept(name, OWN, pair["access_token"])
        return str(pair["refresh_token"])

    def _refresh(self, second: float) -> None:
        answer = self._http.post("/token/refresh", data={"refresh_token": self._refresh_token})
        if answer.status_code == 200:
            self._used_refresh_token = self._used_refresh_token or self._refresh_token
            self._refresh_token = answer.json()["refresh_token"]
            name = f"refreshed at {second:.1f} s"
            self.mix.accept(name, OWN, answer.json()["access_token"])
            self._refreshed.append(name)
            if len(self._refreshed) > REFRESHED_KEPT:
                self.mix.drop(self._refreshed.pop(0))
        elif answer.status_code != 503 or not self.found.away["database"].covers(time.time()):
            self.found.faults.append(f"a refresh: answered {answer.status_code} at {second:.1f} s")

    def _keep_key(self, name: str, made: Mapping[str, Any]) -> None:
        self._key_ids[name] = made["key_id"]
        self.mix.accept(name, OWN, made["key"])

    def _ask(self, method: str, path: str, body: object = None, *, by: str) -> Any:
        headers = {"Authorization": self.mix.credential(by)}
        answer = self._http.request(method, path, json=body, headers=headers).raise_for_status()
        return answer.json() if answer.content else None
