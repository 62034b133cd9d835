"""Calls of a served application, each answer held against its OpenAPI document."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from demo import PASSWORDS

DOCUMENTED = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SERVED = [*DOCUMENTED, not_a_server_error]
FORM = "application/x-www-form-urlencoded"
# The same requests each time.
GENERATED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# How the name of a cookie begins.
COOKIE = "__Host-"


class Served:
    """A served application, its document, and which answers have come.

    Attributes:
        operations: Of the document, by method and path.
        answered: The statuses of the answers so far, by operation.
        address: The address that requests come from; a login counts by it.
    """

    def __init__(self, url: str, session: requests.Session) -> None:
        """Read the document of the application at `url`."""
        self._session = session
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        found = [result.ok() for result in schema.get_all_operations()]
        self.operations: dict[str, Any] = {operation.label: operation for operation in found}
        self.answered: dict[str, set[int]] = defaultdict(set)
        self.address = "192.0.2.1"

    @property
    def documented(self) -> dict[str, set[int]]:
        """The statuses that the document names, by operation."""
        return {
            label: {int(status) for status in operation.definition.raw["responses"]}
            for label, operation in self.operations.items()
        }

    @property
    def guarded(self) -> list[str]:
        """The operations that need a credential."""
        return [label for label, operation in self.operations.items() if "security" in operation.definition.raw]

    def send(self, case: Any, credential: str | None, checks: list[Any] = DOCUMENTED) -> Any:
        """Send a request with a credential, a token or a cookie, and hold the answer against the document."""
        # uvicorn accepts the address of a client from a proxy on its own machine.
        headers = {"X-Forwarded-For": self.address}
        if credential is not None and credential.startswith(COOKIE):
            headers["Cookie"] = credential
        elif credential is not None:
            headers["Authorization"] = f"Bearer {credential}"
        answer = case.call_and_validate(session=self._session, headers=headers, checks=checks)
        self.answered[case.operation.label].add(answer.status_code)
        return answer

    def call(self, label: str, credential: str | None, status: int, **arguments: Any) -> Any:
        """Call an operation, and return the answer, which has this status."""
        answer = self.answer(label, credential, status, **arguments)
        return answer.json() if answer.content else None

    def answer(self, label: str, credential: str | None, status: int, **arguments: Any) -> Any:
        """Call an operation, and return the response, which has this status."""
        answer = self.send(self.operations[label].Case(**arguments), credential)
        assert (label, answer.status_code, answer.text) == (label, status, answer.text)
        return answer


class Demo(Served):
    """A served demo, and who may call it.

    Attributes:
        kind: Of the demo.
    """

    def __init__(self, kind: str, url: str, session: requests.Session, folder: Path, key: str | None) -> None:
        """Read the document of the demo at `url`, whose database is below `folder`."""
        super().__init__(url, session)
        self.kind = kind
        self._folder, self._key = folder, key

    def log_in(self, username: str) -> dict[str, Any]:
        """Return the tokens of a user."""
        form = {"username": username, "password": PASSWORDS[username]}
        return self.call("POST /token", None, 200, body=form, media_type=FORM)

    def everything(self) -> str:
        """Return the credential of a caller who may do everything."""
        key: str = self.log_in("ada")["access_token"] if self._key is None else self._key
        return key

    def nothing(self, everything: str) -> str:
        """Return a valid credential that grants nothing."""
        made = self.call("POST /keys", everything, 201, body={"scopes": []}, media_type="application/json")
        key: str = made["key"]
        return key

    def lose_database(self) -> None:
        """Drop the tables of the running demo."""
        with self._database() as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                if not table.startswith("sqlite_"):
                    database.execute(f'DROP TABLE "{table}"')

    def change_database(self, statement: str) -> None:
        """Execute a statement of SQL in the database of the demo."""
        with self._database() as database:
            database.execute(statement)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        (file,) = self._folder.rglob("demo.db")
        with closing(sqlite3.connect(file)) as database:
            yield database
            database.commit()
