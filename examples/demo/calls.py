"""The lines that `fastapi-guard demo` prints: a POSIX shell runs them unchanged while it serves."""

from .application import PASSWORDS

# A function of the shell that prints a field of a JSON object.
_FIELD = r"""field() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }"""
_JSON = "JSON='Content-Type: application/json'"


def after_login(url: str) -> list[str]:
    """Return calls of an author, of an administrator and of an API key that the author creates."""
    grace, ada = (f"-d username={name} -d password={PASSWORDS[name]}" for name in ("grace", "ada"))
    body = """'{"scopes":["posts:read"]}'"""
    return [
        f"URL={url}",
        "curl -s $URL/health",
        _FIELD,
        _JSON,
        f"LOGIN=$(curl -s $URL/token {grace})",
        'GRACE="Authorization: Bearer $(echo "$LOGIN" | field access_token)"',
        'curl -s $URL/me -H "$GRACE"',
        *_posts("GRACE"),
        """curl -s -X PUT $URL/posts/2 -H "$GRACE" -H "$JSON" -d '{"title":"On Compilers"}'""",
        """curl -si -X PUT $URL/posts/1 -H "$GRACE" -H "$JSON" -d '{"title":"Not hers"}'""",
        'curl -si $URL/admin/users -H "$GRACE"',
        f"ADMIN=$(curl -s $URL/token {ada})",
        'ADA="Authorization: Bearer $(echo "$ADMIN" | field access_token)"',
        'curl -s $URL/admin/users -H "$ADA"',
        'curl -si -X DELETE $URL/posts/2 -H "$ADA"',
        f'CREATED=$(curl -s $URL/keys -H "$GRACE" -H "$JSON" -d {body})',
        'KEY="Authorization: Bearer $(echo "$CREATED" | field key)"',
        'curl -s $URL/posts -H "$KEY"',
        'REFRESH=$(echo "$LOGIN" | field refresh_token)',
        'curl -s $URL/token/refresh -d refresh_token="$REFRESH"',
        "curl -si $URL/posts",
    ]


def with_key(url: str, key: str) -> list[str]:
    """Return calls with one API key; ``key`` is its text, or a command of the shell that prints it."""
    return [
        f"URL={url}",
        "curl -s $URL/health",
        _JSON,
        f"TOKEN={key}",
        'KEY="Authorization: Bearer $TOKEN"',
        'curl -s $URL/me -H "$KEY"',
        *_posts("KEY"),
        'curl -s $URL/admin/users -H "$KEY"',
        "curl -si $URL/posts",
    ]


def _posts(caller: str) -> list[str]:
    return [
        f'curl -s $URL/posts -H "${caller}"',
        f"""curl -s $URL/posts -H "${caller}" -H "$JSON" -d '{{"title":"On Bugs"}}'""",
    ]
