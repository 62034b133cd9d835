"""oidc-provider-mock, for users to sign in with: ``python mock_provider.py``."""

import json
import os

import oidc_provider_mock
from werkzeug.serving import make_server

# Its Authlib accepts no http otherwise, on loopback neither.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

CLAIMS = {
    "ada": {"email": "ada@example.com", "email_verified": True, "name": "Ada"},
    "mallory": {"email": "mallory@example.com", "email_verified": False},
}


def main() -> None:
    """Serve at a free port, with the claims of two users, and print where."""
    app = oidc_provider_mock.app(require_client_registration=True, require_nonce=True)
    client = app.test_client()
    for name, claims in CLAIMS.items():
        client.put(f"/users/{name}", data=json.dumps(claims), content_type="application/json")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(f"Serving at http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201 - for the test
    server.serve_forever()


if __name__ == "__main__":
    main()
