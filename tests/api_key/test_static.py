import hashlib
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from fastapi_guard import APIKeyScheme, ConfigurationError, MissingExtraError, StaticAPIKeyAuth, Unauthorized
from support.asgi import Answer, request

ALICE = "sk-alice-secret-key"
BOB = "sk-bob-secret-key-too"
BOB_HASH = "sha256:" + hashlib.sha256(BOB.encode()).hexdigest()
INVALID = "Invalid API Key"
BAD_BEARER = f'Bearer realm="api", error="invalid_token", error_description="{INVALID}"'
NOW = 1_800_000_000

YAML = f"""\
api_keys:
  {ALICE}: {{user_id: alice, tenant_id: null, is_admin: true, scopes: ["items:*"], expires_at: 2027-03-01T00:00:00Z,
    metadata: {{email: alice@example.com}}}}
  "{BOB_HASH}": {{user_id: bob}}
"""
TOML = f"""\
[api_keys.{ALICE}]
user_id = "alice"
is_admin = true
scopes = ["items:*"]
expires_at = 2027-03-01T00:00:00Z
metadata = {{ email = "alice@example.com" }}

[api_keys."{BOB_HASH}"]
user_id = "bob"
"""
ALICES = {
    "sub": "alice",
    "scope": "items:*",
    "tenant_id": None,
    "is_admin": True,
    "metadata": {"email": "alice@example.com"},
    "exp": int(datetime(2027, 3, 1, tzinfo=UTC).timestamp()),
}
FIELD_NAMES = ("user_id", "tenant_id", "is_admin", "scopes", "expires_at", "metadata")
BOBS = {"sub": "bob", "scope": "", "tenant_id": None, "is_admin": False, "metadata": {}}


def ask(auth: StaticAPIKeyAuth, *fields: bytes, name: bytes = b"authorization") -> Answer:
    """Return the answer to a request with these fields, for which items:read is required."""
    app = FastAPI()

    @app.get("/")
    async def items(claims: Annotated[dict[str, Any], auth.requires("items:read")]) -> dict[str, Any]:
        return claims

    return request(app, "/", [(name, field) for field in fields])


def file(folder: Path, content: str | bytes, name: str = "auth.yaml") -> Path:
    """Write a file and return where it is."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(("name", "content"), [("auth.yaml", YAML), ("auth.yml", YAML), ("auth.toml", TOML)])
async def test_a_file(tmp_path: Path, name: str, content: str) -> None:
    """YAML and TOML say the same: keys as they are or as their hashes, and what each stands for."""
    auth = StaticAPIKeyAuth.from_file(file(tmp_path, content, name), clock=lambda: NOW)
    assert await auth.verify(ALICE) == ALICES
    assert await auth.verify(BOB) == BOBS
    for wrong in (BOB_HASH, BOB_HASH.removeprefix("sha256:"), ALICE[:-1], ALICE.upper(), "api_keys", ""):
        with pytest.raises(Unauthorized) as refusal:
            await auth.verify(wrong)
        assert (refusal.value.detail, refusal.value.reason) == (INVALID, "unknown_key")


async def test_a_path_as_text_and_a_byte_order_mark(tmp_path: Path) -> None:
    """A path may be text, and an editor's byte order mark is not part of the content."""
    path = file(tmp_path, b"\xef\xbb\xbf" + YAML.encode())
    assert (await StaticAPIKeyAuth.from_file(str(path), clock=lambda: NOW).verify(ALICE))["sub"] == "alice"


async def test_a_mapping() -> None:
    """The constructor accepts the keys alone, or the content of a whole file; a moment may be a datetime or text."""
    for expires_at in (datetime(2027, 3, 1, tzinfo=UTC), "2027-03-01T00:00:00Z", "2027-03-01T01:00:00+01:00"):
        entry = {"user_id": "alice", "is_admin": True, "scopes": ("items:*",), "expires_at": expires_at}
        entry["metadata"] = {"email": "alice@example.com"}
        for content in ({ALICE: entry}, {"api_keys": {ALICE: entry}}):
            assert await StaticAPIKeyAuth(content, clock=lambda: NOW).verify(ALICE) == ALICES


def test_the_bearer_header_by_default() -> None:
    """The key comes as a bearer token, with its scopes in force."""
    auth = StaticAPIKeyAuth({ALICE: {"user_id": "alice", "scopes": ["items:edit"]}, BOB: {"user_id": "bob"}})
    assert ask(auth, b"Bearer " + ALICE.encode()).json["sub"] == "alice"
    assert ask(auth, b"Bearer " + BOB.encode()).refusal == (
        403,
        "Token is missing required scope: items:read",
        'Bearer realm="api", error="insufficient_scope", scope="items:read"',
    )
    assert ask(auth).refusal == (401, INVALID, 'Bearer realm="api"')
    assert ask(auth, b"Basic " + ALICE.encode()).refusal == (401, INVALID, 'Bearer realm="api"')


FIELDS: dict[str, Callable[[bytes], bytes]] = {
    "wrong": lambda raw: b"Bearer sk-somebody-elses-key",
    "hash": lambda raw: b"Bearer " + BOB_HASH.removeprefix("sha256:").encode(),
    "prefix of it": lambda raw: b"Bearer " + raw[:-1],
    "more than it": lambda raw: b"Bearer " + raw + b"x",
    "non-ASCII": lambda raw: b"Bearer " + raw + "é".encode(),
    "NUL": lambda raw: b"Bearer " + raw + b"\x00",
    "a megabyte": lambda raw: b"Bearer " + raw * 60_000,
}


@pytest.mark.parametrize("field", FIELDS)
def test_refusals(field: str) -> None:
    """Anything but a key is a 401 with the code of a bearer token, beside a key that is accepted."""
    auth = StaticAPIKeyAuth({ALICE: {"user_id": "alice", "scopes": ["*"]}, BOB_HASH: {"user_id": "bob"}})
    assert ask(auth, FIELDS[field](ALICE.encode())).refusal == (401, INVALID, BAD_BEARER)
    assert ask(auth, b"Bearer " + ALICE.encode()).status == 200


def test_another_header() -> None:
    """With APIKeyScheme the key comes in a header of its own, with the challenge of that."""
    key = "a-key?of~any!sign{}"
    auth = StaticAPIKeyAuth({key: {"user_id": "alice", "scopes": ["*"]}}, scheme=APIKeyScheme("X-Api-Key"))
    assert ask(auth, key.encode(), name=b"x-api-key").status == 200
    refused = (401, INVALID, 'ApiKey realm="api"')
    assert ask(auth, b"another-key-of-it", name=b"x-api-key").refusal == refused
    assert ask(auth, b"Bearer " + key.encode()).refusal == refused


async def test_expiry() -> None:
    """A key holds before its expiry and from then on it does not, with the same answer."""
    now = float(NOW)
    expires_at = datetime.fromtimestamp(NOW + 60, UTC)
    auth = StaticAPIKeyAuth({ALICE: {"user_id": "alice", "expires_at": expires_at}}, clock=lambda: now)
    now += 59
    assert (await auth.verify(ALICE))["exp"] == NOW + 60
    now += 1
    with pytest.raises(Unauthorized) as refusal:
        await auth.verify(ALICE)
    assert (refusal.value.detail, refusal.value.reason) == (INVALID, "expired")


async def test_what_an_endpoint_does_to_its_claims() -> None:
    """Claims are copied, so that an endpoint does not change those of other requests."""
    auth = StaticAPIKeyAuth({ALICE: {"user_id": "alice", "metadata": {"teams": ["red"]}}})
    claims = await auth.verify(ALICE)
    claims["metadata"]["teams"].append("blue")
    claims["scope"] = "*"
    again = await auth.verify(ALICE)
    assert (again["metadata"], again["scope"]) == ({"teams": ["red"]}, "")


async def test_no_keys_at_all() -> None:
    """Without keys everything is refused."""
    assert not await StaticAPIKeyAuth({}).validate_token(ALICE)


@given(st.text() | st.text(st.characters(categories=["Cs"])))
@example(ALICE)
async def test_any_text(raw: str) -> None:
    """Verification is total: every text is a key or is refused."""
    auth = StaticAPIKeyAuth({ALICE: {"user_id": "alice"}})
    assert await auth.validate_token(raw) is (raw == ALICE)


def test_the_repr_shows_no_key() -> None:
    """Neither a key nor a hash is in the repr of an Auth or of its attributes."""
    auth = StaticAPIKeyAuth({ALICE: {"user_id": "alice"}, BOB_HASH: {"user_id": "bob"}})
    shown = repr([auth, vars(auth)])
    assert "'sub': 'alice'" in shown
    for secret in (ALICE, BOB_HASH.removeprefix("sha256:"), repr(bytes.fromhex(BOB_HASH.removeprefix("sha256:")))):
        assert secret not in shown


MISTAKES = """api_keys:
  sk-alice-secret-key:
    user_id: alice
    is_admin: "yes"
    scopes: items:read
    expires_at: 2027-01-01
    owner: alice
  short-key: {user_id: bob}
  sk-carol-secret-key: {scopes: ["items read", "ok", 5], expires_at: 2027-01-01T00:00:00, tenant_id: 7, metadata: [1]}
  "sha256:abc": {user_id: ""}
  1234567890123456789: {user_id: dave}
  sk-erin-secret-key: erin
  "sk-frank secret-key": {user_id: frank, metadata: {1: x}, expires_at: soon}
  "sk-grace-secret-kéy": {user_id: grace, metadata: {day: 2027-01-01}}
  sk-heidi-secret-key:
sk-dedented-secret-key: {user_id: ivan}
keys: {}
"""
FOUND = """\
line 16, (a long name): is not known; known is api_keys
line 17, keys: is not known; known is api_keys
line 4, api_keys.key 1.is_admin: is true or false, not a text
line 5, api_keys.key 1.scopes: is a list of texts, not a text
line 6, api_keys.key 1.expires_at: is a date and a time, such as 2027-01-01T00:00:00Z
line 7, api_keys.key 1.owner: is not known; known are user_id, tenant_id, is_admin, scopes, expires_at, metadata
line 8, api_keys.key 2: has fewer than 16 characters
line 9, api_keys.key 3.user_id: is missing
line 9, api_keys.key 3.tenant_id: is a text, not a number
line 9, api_keys.key 3.scopes.0: is not a scope
line 9, api_keys.key 3.scopes.2: is not a scope
line 9, api_keys.key 3.expires_at: has no time zone, so that its moment is unknown: write 2027-01-01T00:00:00Z
line 9, api_keys.key 3.metadata: is a mapping, not a list
line 10, api_keys.key 4: is not a hash: 64 hexadecimal digits follow sha256:
line 10, api_keys.key 4.user_id: is empty
line 11, api_keys.key 5: is of the type int: put it in quotation marks
line 12, api_keys.key 6: is a mapping of user_id, tenant_id, is_admin, scopes, expires_at, metadata, not a text
line 13, api_keys.key 7: has a character that cannot be sent where the key is expected
line 13, api_keys.key 7.expires_at: is not a moment: write it as 2027-01-01T00:00:00Z
line 13, api_keys.key 7.metadata.1: is a text, not a number
line 14, api_keys.key 8: has a character that cannot be sent where the key is expected
line 14, api_keys.key 8.metadata: has a value in it that JSON does not have
line 15, api_keys.key 9: is a mapping of user_id, tenant_id, is_admin, scopes, expires_at, metadata, not nothing
"""


def mistakes(path: Path) -> list[str]:
    """Return the lines of the refusal of a file; no key, no hash and no cause that quotes the file is in it."""
    with pytest.raises(ConfigurationError) as refusal:
        StaticAPIKeyAuth.from_file(path)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None
    assert "secret" not in str(refusal.value)
    return str(refusal.value).splitlines()


def test_every_mistake_with_its_place(tmp_path: Path) -> None:
    """Every mistake of a file is named at once, each with its line and its place, and no key is shown."""
    found, expected = mistakes(file(tmp_path, MISTAKES)), FOUND.splitlines()
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(f"auth.yaml, {start}")


def test_the_places_in_toml(tmp_path: Path) -> None:
    """The mistakes of a TOML file have their places: its parser has no lines."""
    content = f'[api_keys]\n{ALICE} = {{ user_id = 5, owner = "x" }}\n[other]\n'
    assert mistakes(file(tmp_path, content, "auth.toml")) == [
        "auth.toml, other: is not known; known is api_keys",
        "auth.toml, api_keys.key 1.user_id: is a text, not a number",
        f"auth.toml, api_keys.key 1.owner: is not known; known are {', '.join(FIELD_NAMES)}",
    ]


def test_the_places_in_a_mapping() -> None:
    """A mapping in the code has no file and no lines, and its mistakes have places all the same."""
    with pytest.raises(ConfigurationError) as refusal:
        StaticAPIKeyAuth({ALICE: {"user_id": "alice", "is_admin": 1}})
    assert str(refusal.value) == "api_keys.key 1.is_admin: is true or false, not a number"
    missing = "api_keys: has to be there: a mapping from each key to its settings"
    for wrong, found in ((None, ""), ([], ", not list"), ("keys.toml", ", not text of 9 characters"), (5, ", not 5")):
        with pytest.raises(ConfigurationError, match=f"^{missing}{found}$"):
            StaticAPIKeyAuth(wrong)  # type: ignore[arg-type]


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty YAML": ("a.yaml", b"", "a.yaml: is not a mapping with api_keys in it"),
    "comments": ("a.yaml", b"# secret\n", "a.yaml: is not a mapping with api_keys in it"),
    "empty TOML": ("a.toml", b"", "a.toml, api_keys: has to be there: a mapping from each key to its settings"),
    "list": ("a.yaml", b"[1, secret]", "a.yaml: is not a mapping with api_keys in it"),
    "null": ("a.yaml", b"api_keys:\n", "a.yaml, line 1, api_keys: has to be there: a mapping from each key"),
    "tab": ("a.yaml", b"api_keys:\n\tsk-secret-secret: 1\n", "a.yaml, line 2, column 1: this is not valid YAML"),
    "indent": ("a.yaml", b"a: b: sk-secret-secret\n", "a.yaml, line 1, column 5: this is not valid YAML"),
    "tag": ("a.yaml", b"a: !!python/name:os.secret\n", "a.yaml, line 1, column 4: this is not valid YAML"),
    "alias": ("a.yaml", b"a: *secretsecret\n", "a.yaml, line 1, column 4: this is not valid YAML"),
    "open": ("a.yaml", b"api_keys: {secret", "a.yaml, line 1, column 18: this is not valid YAML"),
    "control": ("a.yaml", b"api_keys: secret\x01\n", "a.yaml: this is not valid YAML: a character, a date"),
    "date": ("a.yaml", b"a: 2027-13-01\n", "a.yaml: this is not valid YAML: a character, a date or a number"),
    "deep": ("a.yaml", b"[" * 100_000, "a.yaml: this is not valid YAML"),
    "a list as a name": ("a.yaml", b"? [secret]\n: 1\n", "a.yaml, line 1, column 3: this is not valid YAML"),
    "recursion": ("a.yaml", b"api_keys: &a\n  k: *a\n", "a.yaml, line 2, api_keys.key 1: has fewer than 16"),
    "twice": (
        "a.yaml",
        b"api_keys:\n  sk-secret-secret: {user_id: a}\n  sk-secret-secret: {user_id: b, user_id: c}\n",
        "a.yaml, line 3: the same name a second time",
    ),
    "TOML": ("a.toml", b"api_keys = secret\n", "a.toml, line 1, column 12: this is not valid TOML"),
    "TOML twice": ("a.toml", b"[a]\nsecret=1\nsecret=2\n", "a.toml, line 3, column 9: this is not valid TOML"),
    "TOML inline": ("a.toml", b"a={secret=1,secret=2}\n", "a.toml, line 1, column"),
    "TOML end": ("a.toml", b'a="secret', "a.toml: this is not valid TOML"),
    "TOML date": ("a.toml", b"a=2027-13-01\n", "a.toml, line 1, column"),
    "latin-1": ("a.yaml", b"api_keys: \xe9 secret\n", "a.yaml is not UTF-8"),
    "JSON": ("a.json", b"{}", "a.json is neither YAML nor TOML: call it .yaml, .yml or .toml"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_files_that_cannot_be_read(tmp_path: Path, broken: str) -> None:
    """The message about a file that cannot be parsed has the place, and no content."""
    name, content, expected = BROKEN[broken]
    assert mistakes(file(tmp_path, content, name))[0].startswith(expected)


def test_yaml_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyYAML a YAML file names the extra, and a TOML file is read all the same."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "fastapi_guard.api_key.yaml_file", raising=False)
    message = r"^PyYAML is not installed: pip install 'fastapi-guard-auth\[yaml\]'$"
    with pytest.raises(MissingExtraError, match=message):
        StaticAPIKeyAuth.from_file(file(tmp_path, YAML))
    StaticAPIKeyAuth.from_file(file(tmp_path, TOML, "auth.toml"))


def test_a_key_and_its_own_hash(tmp_path: Path) -> None:
    """The same key as it is and as its hash would be two users: refused."""
    content = f'api_keys:\n  {BOB}: {{user_id: bob}}\n  "{BOB_HASH.upper().replace("SHA", "sha")}": {{user_id: eve}}\n'
    (mistake,) = mistakes(file(tmp_path, content))
    assert mistake == "auth.yaml, line 3, api_keys.key 2: is there twice, perhaps as it is and as its hash"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file and a folder say so."""
    assert mistakes(tmp_path / "none.yaml")[0].endswith("none.yaml cannot be read: No such file or directory")
    (tmp_path / "folder.yaml").mkdir()
    assert mistakes(tmp_path / "folder.yaml")[0].endswith("cannot be read: Is a directory")


def test_short_keys_only_as_hashes() -> None:
    """A key of fifteen characters is refused, sixteen are enough, and as a hash its length is not known."""
    with pytest.raises(ConfigurationError, match="fewer than 16 characters"):
        StaticAPIKeyAuth({"a" * 15: {"user_id": "alice"}})
    StaticAPIKeyAuth({"a" * 16: {"user_id": "alice"}})
    short = StaticAPIKeyAuth({"sha256:" + hashlib.sha256(b"short").hexdigest(): {"user_id": "alice"}})
    assert ask(short, b"Bearer short").status == 403


async def test_values_of_pydantic() -> None:
    """A key may be a SecretStr, and its settings a model."""

    class Settings(BaseModel):
        """The settings of a key, in the model of an application."""

        user_id: str
        scopes: frozenset[str] = frozenset({"items:read"})

    auth = StaticAPIKeyAuth({SecretStr(ALICE): Settings(user_id="alice")})  # type: ignore[dict-item]
    claims = await auth.verify(ALICE)
    assert (claims["sub"], claims["scope"]) == ("alice", "items:read")


def test_keys_that_have_expired_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A key that has expired before the start is a line in the log: the application has to start all the same."""
    entry = {"user_id": "alice", "expires_at": datetime.fromtimestamp(NOW, UTC)}
    StaticAPIKeyAuth({ALICE: entry}, clock=lambda: NOW - 1)
    assert caplog.text == ""
    StaticAPIKeyAuth({ALICE: entry}, clock=lambda: NOW)
    assert "1 of the static API keys have expired" in caplog.text


def test_a_moment_of_another_zone() -> None:
    """Only the moment counts, not the zone it is written in."""
    late = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    auth = StaticAPIKeyAuth({ALICE: {"user_id": "alice", "scopes": ["*"], "expires_at": late}})
    assert ask(auth, b"Bearer " + ALICE.encode()).status == 200
