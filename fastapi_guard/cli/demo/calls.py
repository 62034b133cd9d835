"""The lines that ``fastapi-guard demo`` prints: a POSIX shell runs them as they are, while it serves."""

from fastapi_guard.cli.demo.application import PASSWORDS

_JSON = "-H 'Content-Type: application/json' -d"


def _taken_from(name: str) -> str:
    return f"""sed 's/.*"{name}":"\\([^"]*\\)".*/\\1/'"""


def _bearer(variable: str) -> str:
    return f'-H "Authorization: Bearer ${variable}"'


def after_login(url: str) -> list[str]:
    """Return the calls of an author and an administrator who log in, and of an API key that the author makes."""
    grace, ada = (f"curl -s {url}/token -d username={name} -d password={PASSWORDS[name]}" for name in ("grace", "ada"))
    made = f"""curl -s {url}/keys {_bearer("TOKEN")} {_JSON} '{{"name":"ci","scopes":["posts:read"]}}'"""
    return [
        f"curl -s {url}/health",
        f"LOGIN=$({grace})",
        f'TOKEN=$(echo "$LOGIN" | {_taken_from("access_token")})',
        f'REFRESH=$(echo "$LOGIN" | {_taken_from("refresh_token")})',
        f"curl -s {url}/me {_bearer('TOKEN')}",
        *_posts(url),
        f"""curl -s -X PUT {url}/posts/2 {_bearer("TOKEN")} {_JSON} '{{"title":"On Compilers"}}'""",
        f"""curl -si -X PUT {url}/posts/1 {_bearer("TOKEN")} {_JSON} '{{"title":"Not hers"}}'""",
        f"curl -si {url}/admin/users {_bearer('TOKEN')}",
        f"ADMIN=$({ada} | {_taken_from('access_token')})",
        f"curl -s {url}/admin/users {_bearer('ADMIN')}",
        f"curl -si -X DELETE {url}/posts/2 {_bearer('ADMIN')}",
        f"KEY=$({made} | {_taken_from('key')})",
        f"curl -s {url}/posts {_bearer('KEY')}",
        f'curl -s {url}/token/refresh -d refresh_token="$REFRESH"',
        f"curl -si {url}/posts",
        f"curl -s {url}/.well-known/jwks.json",
    ]


def with_key(url: str, key: str) -> list[str]:
    """Return the calls with one API key, which a shell finds by ``key``."""
    return [
        f"curl -s {url}/health",
        f"TOKEN={key}",
        f"curl -s {url}/me {_bearer('TOKEN')}",
        *_posts(url),
        f"curl -s {url}/admin/users {_bearer('TOKEN')}",
        f"curl -si {url}/posts",
    ]


def _posts(url: str) -> list[str]:
    return [
        f"curl -s {url}/posts {_bearer('TOKEN')}",
        f"""curl -s {url}/posts {_bearer("TOKEN")} {_JSON} '{{"title":"On Bugs"}}'""",
    ]
