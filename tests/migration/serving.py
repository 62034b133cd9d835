"""Answer for an application: a question a line on standard input, as JSON, and its answer on standard output.

It runs in the Python of the application, which has neither this package nor its versions of anything.
"""

import json
import runpy
import sys
from typing import Any

from starlette.testclient import TestClient


def main() -> None:
    """Answer until the input ends."""
    names = runpy.run_path(sys.argv[1])
    client = TestClient(names["app"], raise_server_exceptions=False)

    def answer(question: dict[str, Any]) -> Any:
        if "expression" in question:
            value = eval(question["expression"], names)  # noqa: S307 - of our own page
            return value if isinstance(value, str | int | dict | list) else repr(value)
        given = client.request(**question)
        is_json = given.headers["content-type"] == "application/json"
        return [given.status_code, dict(given.headers), given.json() if is_json else given.text]

    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
