"""Serve a module on loopback, as its page shows it: ``python serve.py PAGE NUMBER ISSUER``, or a module beside this."""

import re
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn


def main(source: str, issuer: str, number: str = "0") -> None:
    """Run the code at ``source`` with the addresses of this machine, and print where it is served."""
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    code = Path(source).read_text(encoding="utf-8")
    if source.endswith(".md"):
        code = re.findall(r"^```python\n(.*?)^```$", code, flags=re.DOTALL | re.MULTILINE)[int(number)]
    for name, address in (("https://id.example", issuer), ("https://api.example", origin), ("api.example", origin[7:])):
        code = code.replace(name, address)
    namespace: dict[str, Any] = {"__name__": "served"}
    exec(compile(code, source, "exec"), namespace)  # noqa: S102 - ours
    config = uvicorn.Config(namespace["app"], log_level="warning")
    print(f"Serving at {origin}", flush=True)  # noqa: T201 - for the test
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
