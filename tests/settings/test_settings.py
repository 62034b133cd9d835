"""An Auth from configuration, and every mistake of a configuration at once."""

import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from joserfc import jwk
from pydantic import BaseModel, HttpUrl, RedisDsn, SecretBytes, SecretStr
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from fastapi_guard import ConfigurationError, JWTConfig, StaticAPIKeyAuth, Unauthorized
from fastapi_guard.api_key.database import DatabaseAPIKeyAuth
from fastapi_guard.api_key.models import Base
from fastapi_guard.events import Event
from fastapi_guard.issuers import IntrospectionAuth, MultiOIDCAuth, OIDCAuth
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.login.keyring import Keyring
from fastapi_guard.login.local import LocalAuth
from fastapi_guard.login.login import Login
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.throttle import Throttle
from fastapi_guard.login.users import MappingUsers
from fastapi_guard.settings import check_config, create_auth
from fastapi_guard.stores import MemoryStore
from fastapi_guard.stores.redis import RedisStore

KEY = "sk-alice-random-value-7d1f"
SECRET = "0f2c9b1e-4a7d-43f8-9c65-b1de07a3"
HASH = "$2b$04$QYZtUDlNcYyp7o0dRkVgVuqXW2Zv2ozZaW0M7v6qk0h7aHcOmyYZq"
USERS: dict[str, Any] = {"alice@example.com": {"password_hash": HASH, "scopes": ["items:*"]}}
NO_SCOPE = "is not a scope: a text without spaces and quotation marks (RFC 6749 3.3)"
LOCAL: dict[str, Any] = {"jwt_secret": SECRET, "users": USERS}
OIDC: dict[str, Any] = {"issuer": "https://id.example", "audience": "https://api.example"}


def mistakes_of(kind: str, config: Any = None, **collaborators: Any) -> list[str]:
    """Return the lines of the refusal."""
    with pytest.raises(ConfigurationError) as error:
        create_auth(kind, config, **collaborators)
    return str(error.value).splitlines()


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's environment is a setting."""
    for name in ("JWT_SECRET", "USERS", "API_KEYS", "ISSUER", "AUDIENCE", "KIND", "PEPPERS", "KEY_PREFIX"):
        monkeypatch.delenv(f"FASTAPI_GUARD_{name}", raising=False)


def test_no_kind_is_no_auth() -> None:
    """Without a kind there is no Auth, whatever else is given; a kind that there is not is refused with the others."""
    assert create_auth(None) is None
    assert create_auth(None, {"api_keys": {}}, session_factory=lambda: None) is None
    assert mistakes_of("ldap") == [
        "there is no such kind of authentication: kind is one of static, database, local, oidc, multi-oidc"
    ]


async def test_static() -> None:
    """Keys of the mapping hold, with the settings of every kind; others do not."""
    config = {"api_keys": {KEY: {"user_id": "alice", "scopes": ["a:read"]}}, "name": "keys", "header": "X-Api-Key"}
    events: list[Event] = []
    auth = create_auth("static", config, on_event=events.append, session_factory=None, users=USERS)
    assert isinstance(auth, StaticAPIKeyAuth)
    assert (auth.name, auth.scheme.scheme_name) == ("keys", "X-Api-Key")
    assert (await auth.verify(KEY))["sub"] == "alice"
    with pytest.raises(Unauthorized):
        await auth.verify(KEY + "x")


async def test_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the database hold, made with the peppers of the configuration, or of the environment."""
    engine = create_engine(f"sqlite:///{tmp_path}/keys.db")
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    pepper = "pepper-" * 6
    auth = create_auth("database", {"key_prefix": "acme", "peppers": {"1": pepper}}, session_factory=sessions)
    assert isinstance(auth, DatabaseAPIKeyAuth)
    _, raw = await auth.create(user_id="alice", name="ci")
    assert raw.startswith("acme-")
    assert (await auth.verify(raw))["sub"] == "alice"
    assert await create_auth("database", session_factory=sessions).validate_token(raw) is False
    monkeypatch.setenv("FASTAPI_GUARD_PEPPERS", json.dumps({"1": pepper}))
    monkeypatch.setenv("FASTAPI_GUARD_KEY_PREFIX", "acme")
    assert await create_auth("database", session_factory=sessions).validate_token(raw) is True
    engine.dispose()


def test_a_database_needs_its_sessions() -> None:
    """The collaborator that is missing is named, beside what else is wrong."""
    assert mistakes_of("database") == ["session_factory is required for database authentication"]
    assert mistakes_of("database", {"require_pepper": True}, session_factory=None) == [
        "session_factory is required for database authentication",
        "require_pepper: rejects every key where there are no peppers",
    ]


async def test_local() -> None:
    """Users log in with their password, and their tokens are valid; the settings of JWTConfig are its own."""
    hashed = await PasswordHasher().hash("correct horse battery staple")
    users = {"alice@example.com": {"password_hash": hashed, "subject_id": "alice", "tenant_id": None, "is_admin": True}}
    config = {"jwt_secret": SECRET, "users": users, "issuer": "me", "audience": "api", "expiration_seconds": 60}
    auth = create_auth("local", config)
    assert isinstance(auth, LocalAuth)
    token = await auth.login("alice@example.com", "correct horse battery staple")
    assert token.expires_in == 60
    claims = await auth.verify(token.access_token)
    assert (claims["sub"], claims["iss"], claims["aud"], claims["is_admin"]) == ("alice", "me", "api", True)
    with pytest.raises(Unauthorized):
        await auth.login("alice@example.com", "wrong")
    other = create_auth("local", {"jwt_secret": SECRET}, users=users)
    assert isinstance(other, LocalAuth)
    assert await other.login("alice@example.com", "correct horse battery staple")


def test_a_login_in_place_of_users() -> None:
    """A Login, with a hasher and limits of its own, may be passed in place of the users."""
    login = Login(USERS, MemoryStore(), name="local")
    auth = create_auth("local", {"jwt_secret": SECRET}, users=login)
    assert isinstance(auth, LocalAuth)
    assert auth.gate is login


def test_oidc() -> None:
    """One provider, or several by name; ID tokens are accepted unless the configuration has another setting."""
    auth = create_auth("oidc", {**OIDC, "jwks_uri": "https://id.example/keys", "roles": {"editor": ["a:*"]}})
    assert isinstance(auth, OIDCAuth)
    assert (auth.config.issuer_url, auth.config.token_types) == ("https://id.example", ("JWT",))
    access = create_auth("oidc", {**OIDC, "accept": "access"})
    assert isinstance(access, OIDCAuth)
    assert access.config.token_types == ("JWT", "at+jwt")
    several = create_auth("multi-oidc", {"providers": {"one": OIDC, "two": {**OIDC, "issuer": "https://two.example"}}})
    assert isinstance(several, MultiOIDCAuth)
    assert list(several.providers) == ["one", "two"]
    assert several.providers["one"].config.token_types == ("JWT",)


MISTAKES: dict[str, tuple[str, Any, list[str]]] = {
    "nothing is there": ("local", {}, ["jwt_secret: is missing", "users: is missing"]),
    "null is nothing": ("local", {"jwt_secret": None, "users": USERS}, ["jwt_secret: is missing"]),
    "no mapping": (
        "oidc",
        ["issuer"],
        [
            (
                "is a mapping of issuer, audience, jwks_uri, accept, algorithms, require, leeway_seconds, cache_size,"
                " kind, header, name, roles, role_claims, scope_claims, default_role, not a list"
            ),
        ],
    ),
    "every mistake of a user": (
        "local",
        {
            "jwt_secret": "short",
            "users": {
                "alice@example.com": {"scope": ["a:b"], "is_admin": "yes", "scopes": ["a b", 5]},
                "bob": {"password_hash": "his password", "roles": "admin"},
                "eve": "secret",
            },
            "expiration_seconds": -1,
            "algorithm": "none",
            "audience": [],
        },
        [
            "algorithm: is one of HS256, HS384, HS512",
            "jwt_secret: has 5 bytes, and 32 are needed (RFC 7518 3.2): use random ones: python -c",
            "users.alice@example.com.password_hash: is missing",
            "users.alice@example.com.is_admin: is true or false, not a text",
            f"users.alice@example.com.scopes.0: {NO_SCOPE}",
            f"users.alice@example.com.scopes.1: {NO_SCOPE}",
            "users.alice@example.com.scope: is not known; did you mean scopes?",
            "users.bob.password_hash: is not a hash: make one with `fastapi-guard password hash`",
            "users.bob.roles: is a list of texts, not a text",
            (
                "users.eve: is a mapping of password_hash, subject_id, subject_type, tenant_id, is_admin, scopes,"
                " roles, disabled, not a text"
            ),
            "audience: is empty",
            "expiration_seconds: is a whole number from 1 on",
        ],
    ),
    "every mistake of a provider": (
        "multi-oidc",
        {
            "providers": {
                "google": {"issuer": "http://id.example", "accept": "both", "audience": ["", 5]},
                "other": {"audience": "x", "algorithms": 5, "isuer": "y"},
            },
            "provider": {},
        },
        [
            "providers.google.issuer: http://id.example is not an https URL, such as https://id.example: keys",
            "providers.google.audience.0: is empty",
            "providers.google.audience.1: is a text, not a number",
            "providers.google.accept: is one of id, access",
            "providers.other.issuer: is missing",
            "providers.other.algorithms: is a list of texts, not a number",
            "providers.other.isuer: is not known; did you mean issuer?",
            "provider: is not known; did you mean providers?",
        ],
    ),
    "one issuer twice": (
        "multi-oidc",
        {"providers": {"one": OIDC, "two": OIDC}},
        ["providers: one and two have the same issuer: name each issuer once"],
    ),
    "no provider": ("multi-oidc", {"providers": {}}, ["providers: is empty"]),
    "providers without names": (
        "multi-oidc",
        {"providers": {1: OIDC}},
        ["providers.1: is a text, not a number"],
    ),
    "kinds of values": (
        "oidc",
        {**OIDC, "require": 1.5, "cache_size": True, "roles": {"a": None}, "header": "X Y", "default_role": "b"},
        [
            "require: is a mapping, not a number",
            "cache_size: is a whole number from 0 on",
            "header: cannot be the name of a header",
            "roles.a: is a list of texts, not nothing",
        ],
    ),
    "a text is not empty": ("oidc", {"issuer": "", "audience": ""}, ["issuer: is empty", "audience: is empty"]),
    "keys": (
        "static",
        {"api_keys": {"short": {"user_id": "alice"}, KEY: {"scopes": "a"}}, "kind": "oidc", "leeway": 5},
        [
            "leeway: is not known; known are kind, header, name, roles, role_claims,",
            "kind: is not static, which was requested",
            "api_keys.key 1: has fewer than 16 characters and can be guessed: use a random one",
            "api_keys.key 2.user_id: is missing",
            "api_keys.key 2.scopes: is a list of texts, not a text",
        ],
    ),
    "no keys": ("static", {"api_keys": [KEY]}, ["api_keys: is a mapping, not a list"]),
    "a key where a name should be": (
        "static",
        {KEY: {"user_id": "alice"}},
        [
            "api_keys: is missing",
            (
                "(a long name): is not known; known are kind, header, name, roles, role_claims, scope_claims,"
                " default_role, api_keys"
            ),
        ],
    ),
    "what is out of bounds": (
        "local",
        {**LOCAL, "leeway_seconds": 301, "expiration_seconds": 0, "cache_size": 1.5},
        [
            "expiration_seconds: is a whole number from 1 on",
            "leeway_seconds: is a whole number from 0 to 300",
            "cache_size: is a whole number from 0 on",
        ],
    ),
    "what no provider signs with": (
        "multi-oidc",
        {
            "providers": {
                "one": {**OIDC, "algorithms": ["RS256", "HS256", "none"], "leeway_seconds": 301},
                "two": {"issuer": "https://{tenant}.example", "audience": "x"},
            }
        },
        [
            "providers.one.algorithms.1: is one of RS256, ",
            "providers.one.algorithms.2: is one of RS256, ",
            "providers.one.leeway_seconds: is a whole number from 0 to 300",
            "providers.two.issuer: has a query, or a place to fill in: an issuer has neither",
        ],
    ),
    "a sample for a secret": (
        "local",
        {**LOCAL, "jwt_secret": "your-secret-key-that-is-long-enough-to-be-one"},
        ["jwt_secret: the secret contains"],
    ),
    "a prefix and peppers": (
        "database",
        {"key_prefix": "a b", "peppers": {"1": "short"}},
        [
            "session_factory is required for database authentication",
            'key_prefix: this prefix cannot begin a key: use letters, digits, "_" and "-", at most 32, such as "acme"',
            "peppers: pepper number 1 is shorter than 16 bytes",
        ],
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_every_mistake_at_once(case: str) -> None:
    """Each mistake has a line with its path, and no line has a secret; a configuration without them passes above."""
    kind, config, expected = MISTAKES[case]
    found = mistakes_of(kind, config)
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)
    assert not [line for line in found if KEY in line or SECRET in line or "his password" in line]


def plain_models() -> list[tuple[str, Any]]:
    """Return configurations with the values and the models of pydantic."""

    class User(BaseModel):
        """A user in the model of an application."""

        password_hash: SecretStr
        scopes: tuple[str, ...] = ("items:*",)

    class Local(BaseModel):
        """Settings of an application."""

        jwt_secret: SecretStr
        users: dict[str, User]
        audience: str | None = None

    class OpenID(BaseModel):
        """Settings with URLs."""

        issuer: HttpUrl
        audience: HttpUrl
        jwks_uri: HttpUrl | None = None

    local = Local(jwt_secret=SecretStr(SECRET), users={"alice": User(password_hash=SecretStr(HASH))})
    openid = OpenID.model_validate({"issuer": "https://id.example", "audience": "https://api.example/v1"})
    return [
        ("local", local),
        ("local", {"jwt_secret": SecretStr(SECRET), "users": {"alice": {"password_hash": SecretStr(HASH)}}}),
        ("oidc", openid),
        ("multi-oidc", {"providers": {"one": openid}}),
        ("static", {"api_keys": {KEY: {"user_id": "alice"}}, "name": SecretStr("keys")}),
    ]


def test_values_and_models_of_pydantic() -> None:
    """A configuration may be a settings model, and have SecretStr and HttpUrl in it; an issuer has no added slash."""
    for kind, config in plain_models():
        auth = create_auth(kind, config)
        if isinstance(auth, OIDCAuth):
            assert (auth.config.issuer_url, auth.config.audience) == ("https://id.example", "https://api.example/v1")
        assert check_config(config, kind) == kind
    (_, local), *_ = plain_models()
    local.jwt_secret = SecretStr("short")
    assert mistakes_of("local", local)[0].startswith("jwt_secret: has 5 bytes")


PEM = jwk.ECKey.generate_key("P-256").as_pem(private=True).decode()
PLACE = HttpUrl("https://id.example")
CLIENT: dict[str, Any] = {"client_id": "api", "client_secret": SecretStr(SECRET), "issuer": PLACE}


TAKEN: list[tuple[Callable[[], Any], Callable[[Any], bool]]] = [
    (lambda: JWTConfig(key=SecretStr(PEM)), lambda made: made.can_sign),
    (lambda: JWTConfig(key=[SecretStr(PEM)]), lambda made: made.can_sign),
    (lambda: JWTConfig(key={"a": SecretStr(PEM)}), lambda made: made.can_sign),
    (lambda: JWTConfig(key=PEM, issuer_url=PLACE), lambda made: made.rules.issuers == {"https://id.example"}),
    (lambda: JWTConfig(key=PEM, audience=[PLACE]), lambda made: made.rules.audiences == {"https://id.example"}),
    (lambda: OIDCAuth(PLACE, PLACE), lambda made: made.issuers == ("https://id.example",)),
    (lambda: OIDCAuth([PLACE, "b"], "a"), lambda made: made.issuers == ("https://id.example", "b")),
    (
        lambda: OIDCAuth("x", "a", jwks_uri=HttpUrl("https://a.example/k")),
        lambda made: made.key_set.url[-2:] == "/k",
    ),
    (lambda: RemoteKeySet(PLACE), lambda made: made.url == "https://id.example"),
    (lambda: IntrospectionAuth(PLACE, **CLIENT), lambda made: made.issuers == ("https://id.example",)),
    (lambda: Keyring(SecretStr(SECRET), "x").mac("a"), lambda made: made == Keyring(SECRET, "x").mac("a")),
    (lambda: Keyring({"2": SecretBytes(SECRET.encode())}, "x"), lambda made: made.is_current("2.")),
    (lambda: MappingUsers({"ada": {"password_hash": SecretStr(HASH)}}), lambda made: len(list(made)) == 1),
    (lambda: RedisStore.from_url(SecretStr("redis://:a@127.0.0.1/0")), lambda made: isinstance(made, RedisStore)),
    (lambda: RedisStore.from_url(RedisDsn("redis://:a@127.0.0.1/0")), lambda made: isinstance(made, RedisStore)),
]


@pytest.mark.parametrize(("make", "read"), TAKEN, ids=range(len(TAKEN)))
def test_constructors_take_values_of_pydantic(make: Callable[[], Any], read: Callable[[Any], bool]) -> None:
    """Constructors accept the values of a settings model as they are."""
    assert read(make())


def valid_configurations() -> list[tuple[str, dict[str, Any]]]:
    """Return a configuration of each kind, with a value for every setting."""
    common: dict[str, Any] = {"name": "x", "header": "X-Key", "roles": {"a": ["b"]}, "default_role": "a"}
    entry = {"user_id": "a", "tenant_id": "b", "is_admin": True, "scopes": ["c"], "metadata": {"d": 1}}
    user = {**USERS["alice@example.com"], "subject_id": "a", "roles": ["a"], "disabled": False}
    return [
        ("static", {"kind": "static", "api_keys": {KEY: {**entry, "expires_at": "2099-01-01T00:00:00Z"}}, **common}),
        ("database", {"key_prefix": "ab", "peppers": {"1": "p" * 32}, "require_pepper": True, "cache_seconds": 5}),
        ("local", {**LOCAL, "users": {"alice": user}, "algorithm": "HS256", "audience": ["a", "b"], **common}),
        ("oidc", {**OIDC, "jwks_uri": "https://id.example/k", "accept": "id", "algorithms": ["RS256"], **common}),
        ("multi-oidc", {"providers": {"one": {**OIDC, "require": {"a": 1}, "leeway_seconds": 5}}, **common}),
    ]


LEAK = "hunter2-Correct/Horse=Battery"


def misplaced(config: Any) -> Iterator[Any]:
    """Yield configurations with a secret in the place of each value, and of each name, at every depth."""
    if isinstance(config, dict):
        for name, value in config.items():
            others = {other: kept for other, kept in config.items() if other != name}
            yield {**others, name: LEAK}
            yield {**others, name: [LEAK]}
            yield {**others, name: {LEAK: LEAK}}
            yield {**others, LEAK: value}
            for inner in misplaced(value):
                yield {**others, name: inner}
    elif isinstance(config, list):
        yield [LEAK, 5]


@pytest.mark.parametrize(("kind", "config"), valid_configurations(), ids=[kind for kind, _ in valid_configurations()])
def test_a_secret_in_every_wrong_place(kind: str, config: dict[str, Any], tmp_path: Path) -> None:
    """A secret that is a value or a name anywhere is in no message, cause or traceback; also from a file."""
    collaborators: dict[str, Any] = {"session_factory": sessionmaker(create_engine(f"sqlite:///{tmp_path}/keys.db"))}
    create_auth(kind, config, **collaborators)
    refusals = []
    for wrong in misplaced(config):
        path = file(tmp_path, "auth.yaml", yaml.safe_dump(wrong))
        refusals += [told(partial(create_auth, kind, wrong, **collaborators))]
        refusals += [told(partial(check_config, path, given=collaborators))]
        assert LEAK not in "".join(refusals), wrong
    assert len([refusal for refusal in refusals if refusal]) > len(config)


def told(check: Callable[[], object]) -> str:
    """Return the traceback of a refusal, with its causes; nothing where there is none."""
    try:
        check()
    except ConfigurationError as error:
        return "".join(traceback.format_exception(error))
    return ""


def test_a_configuration_that_contains_itself(tmp_path: Path) -> None:
    """A mapping or a file that contains itself is one clear line."""
    endless: dict[str, Any] = {"api_keys": {}}
    endless["roles"] = endless
    for config in (endless, file(tmp_path, "auth.yaml", "roles: &a\n  b: *a\n")):
        assert mistakes_of("static", config) == ["the configuration is nested too deeply, or contains itself"]


def test_a_secret_in_the_wrong_place() -> None:
    """A secret that stands where something else should is not told with the mistake."""
    for name in ("issuer", "jwks_uri", "header"):
        (line,) = mistakes_of("oidc", {**OIDC, name: f"{SECRET} {SECRET}"})
        assert line.startswith(f"{name}: ")
        assert SECRET not in line


def test_a_collaborator_of_another_kind() -> None:
    """A mistake that only the Auth finds is a refusal too."""
    (line,) = mistakes_of("database", {}, session_factory=list)
    assert line.startswith("pass a factory, sessionmaker(engine) or async_sessionmaker(engine)")


def test_an_unknown_collaborator() -> None:
    """An unknown collaborator is an error; one that another kind needs is ignored."""
    (line,) = mistakes_of("static", {"api_keys": {}}, sesion_factory=1)
    assert line.startswith("there is no collaborator sesion_factory; there are session_factory, model,")


YAML = f"""
kind: static
api_keys:
  "${{ALICE_KEY}}": {{user_id: "${{WHO:-alice}}", metadata: {{note: "$${{literal}}"}}}}
  {KEY}: {{user_id: bob, scopes: ["${{SCOPE}}"]}}
"""
TOML = f"""
jwt_secret = "${{JWT_SECRET}}"
[users."alice@example.com"]
password_hash = "{HASH}"
"""


def file(tmp_path: Path, name: str, text: str) -> Path:
    """Write a file and return its path."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


async def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is YAML or TOML, and has environment variables in it, in keys of a mapping too."""
    monkeypatch.setenv("ALICE_KEY", "a-key-of-the-environment")
    monkeypatch.setenv("SCOPE", "items:read")
    monkeypatch.delenv("WHO", raising=False)
    auth = create_auth("static", file(tmp_path, "auth.yaml", YAML))
    claims = await auth.verify("a-key-of-the-environment")
    assert (claims["sub"], claims["metadata"]) == ("alice", {"note": "${literal}"})
    assert (await auth.verify(KEY))["scope"] == "items:read"
    monkeypatch.setenv("JWT_SECRET", SECRET)
    local = create_auth("local", str(file(tmp_path, "auth.toml", TOML)))
    assert isinstance(local, LocalAuth)


def test_mistakes_of_a_file_have_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In YAML each mistake has its line, and a variable that is not set is one of them; in TOML the path alone."""
    for name in ("ALICE_KEY", "SCOPE", "JWT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    assert mistakes_of("static", file(tmp_path, "auth.yaml", YAML + "heder: X-Key\n")) == [
        "auth.yaml, line 4, api_keys.key 1: the environment has no ALICE_KEY",
        "auth.yaml, line 5, api_keys.key 2.scopes.0: the environment has no SCOPE",
        "auth.yaml, line 6, heder: is not known; did you mean header?",
        "auth.yaml, line 4, api_keys.key 1: has fewer than 16 characters and can be guessed: use a random one",
        f"auth.yaml, line 5, api_keys.key 2.scopes.0: {NO_SCOPE}",
    ]
    assert mistakes_of("local", file(tmp_path, "auth.toml", TOML)) == [
        "auth.toml, jwt_secret: the environment has no JWT_SECRET",
        "auth.toml, jwt_secret: is empty",
    ]
    assert mistakes_of("local", tmp_path / "gone.yaml") == [
        f"{tmp_path}/gone.yaml cannot be read: No such file or directory"
    ]
    assert mistakes_of("local", file(tmp_path, "empty.yaml", "")) == [
        "empty.yaml, jwt_secret: is missing",
        "empty.yaml, users: is missing",
    ]


async def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configuration the settings are environment variables; other types are JSON."""
    monkeypatch.setenv("FASTAPI_GUARD_JWT_SECRET", SECRET)
    monkeypatch.setenv("FASTAPI_GUARD_USERS", json.dumps(USERS))
    monkeypatch.setenv("FASTAPI_GUARD_EXPIRATION_SECONDS", "60")
    monkeypatch.setenv("FASTAPI_GUARD_AUDIENCE", '["a", "b"]')
    auth = create_auth("local")
    assert isinstance(auth, LocalAuth)
    assert (auth.config.expiration_seconds, auth.config.audience) == (60, ("a", "b"))
    monkeypatch.setenv("FASTAPI_GUARD_EXPIRATION_SECONDS", "an hour")
    monkeypatch.setenv("FASTAPI_GUARD_USERS", "{")
    monkeypatch.delenv("FASTAPI_GUARD_JWT_SECRET")
    found = mistakes_of("local")
    assert found == [
        "FASTAPI_GUARD_JWT_SECRET: is missing",
        "FASTAPI_GUARD_USERS: is a mapping, not a text",
        "FASTAPI_GUARD_EXPIRATION_SECONDS: is a whole number from 1 on",
    ]
    monkeypatch.setenv("FASTAPI_GUARD_API_KEYS", json.dumps({KEY: {"user_id": "alice"}}))
    assert (await create_auth("static").verify(KEY))["sub"] == "alice"


TOLD: list[tuple[Mapping[str, Any], str]] = [
    ({"api_keys": {}}, "static"),
    ({"kind": "database", "require_expiry": True}, "database"),
    (LOCAL, "local"),
    (OIDC, "oidc"),
    ({"providers": {"one": OIDC}}, "multi-oidc"),
]


@pytest.mark.parametrize(("config", "kind"), TOLD, ids=[kind for _, kind in TOLD])
def test_checking_a_configuration(config: Mapping[str, Any], kind: str) -> None:
    """The kind of a configuration without a mistake is returned; a mistake is an error as at the start."""
    assert check_config(config) == kind
    assert check_config(config, kind) == kind
    with pytest.raises(ConfigurationError, match=r"^scheme: is not known"):
        check_config({**config, "scheme": "x"}, kind)


def test_checking_what_cannot_be_told() -> None:
    """A configuration without a kind is an error, and one with another kind than the requested one."""
    for config in ({}, ["kind"]):
        with pytest.raises(ConfigurationError, match=r"^kind: is missing: one of static, database, local, oidc"):
            check_config(config)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="there is no such kind of authentication"):
        check_config({"kind": "ldap"})
    with pytest.raises(ConfigurationError, match="kind: is not static, which was requested"):
        check_config({"kind": "oidc", "api_keys": {}}, "static")


@pytest.mark.parametrize("name", [("a",), 1, None, b"a", frozenset("a")], ids=repr)
def test_a_name_that_is_not_a_text(name: Any) -> None:
    """It is a mistake with its place, for any hashable name."""
    with pytest.raises(ConfigurationError, match=r": Keys should be strings$"):
        check_config({name: 1, "kind": "static", "api_keys": {}})
    with pytest.raises(ConfigurationError, match=r": Keys should be strings$"):
        create_auth("static", {name: 1, "api_keys": {}})


def test_checking_what_the_application_adds() -> None:
    """Settings that the application passes need not be in the configuration; the rest of it is checked."""
    with pytest.raises(ConfigurationError, match=r"^users: is missing$"):
        check_config({"jwt_secret": SECRET})
    assert check_config({"jwt_secret": SECRET}, given=["users"]) == "local"
    with pytest.raises(ConfigurationError, match=r"^jwt_secret: "):
        check_config({"jwt_secret": "short"}, given=["users"])
    with pytest.raises(ConfigurationError, match=r"^leeway_seconds: is a whole number from 0 to 300$"):
        check_config({"jwt_secret": SECRET, "leeway_seconds": 301}, given=["users"])


def test_arguments_in_the_wrong_order() -> None:
    """A configuration in place of the kind is refused like any other kind that does not exist."""
    with pytest.raises(ConfigurationError, match="there is no such kind of authentication"):
        create_auth({"api_keys": {}}, "static")  # type: ignore[call-overload]


def test_what_a_login_has_of_its_own() -> None:
    """A setting or a collaborator that would not apply beside a Login is refused."""
    login = Login({}, MemoryStore())
    config = {"jwt_secret": "Zk3v9Q0xR7tYwM2nB5cD8fG1hJ4kL6pS"}
    assert create_auth("local", config, users=login)
    with pytest.raises(ConfigurationError, match="pass trusted_proxies, address_throttle to the Login"):
        create_auth("local", {**config, "trusted_proxies": 1}, users=login, address_throttle=Throttle("5/minute"))
