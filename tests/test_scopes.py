"""Scopes and the strategies that compare them."""

import pickle
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, ClassVar

import pytest
from fastapi import APIRouter, Depends, FastAPI
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_guard import (
    ConfigurationError,
    HierarchicalScopeValidator,
    Scope,
    ScopesAuth,
    ScopeValidator,
    SimpleScopeValidator,
    Unauthorized,
)
from fastapi_guard.scopes import decide_alike, scopes_of
from support.asgi import request

SCOPE_CHARACTERS = {chr(code) for code in range(0x21, 0x7F)} - {'"', "\\"}


class Permission(StrEnum):
    """Scopes of an application as an Enum."""

    READ = "items:read"


class Old(str, Enum):  # noqa: UP042 - as many applications have it
    """The same, as it was written before there was StrEnum."""

    READ = "items:read"


class Number(IntEnum):
    """An Enum that holds no text."""

    ONE = 1


class Ranks(HierarchicalScopeValidator):
    """An own hierarchy, in which one action covers another through a third."""

    scope_hierarchy: ClassVar[Mapping[str, AbstractSet[str]]] = {
        "read": set(),
        "write": {"read"},
        "admin": {"write"},
        "publish": frozenset({"announce", "write"}),
    }


class Circle(HierarchicalScopeValidator):
    """A hierarchy in which two actions cover each other."""

    scope_hierarchy: ClassVar[Mapping[str, AbstractSet[str]]] = {"read": {"write"}, "write": {"read"}, "edit": set()}


class Owner(HierarchicalScopeValidator):
    """A hierarchy in which an action covers the wildcard."""

    scope_hierarchy: ClassVar[Mapping[str, AbstractSet[str]]] = {"owner": {"*"}, "*": {"read"}, "read": set()}


def covers(granted: str, required: str, hierarchy: Mapping[str, AbstractSet[str]]) -> bool:
    """Decide about one granted scope as the documentation words it, as slowly as it reads."""
    if ":" not in required:
        return granted == required
    if ":" not in granted:
        return False
    holder, holds = granted.split(":", 1)
    resource, action = required.split(":", 1)
    if not resource or not action or not holder or not holds:
        return False
    if holder not in {resource, "*"}:
        return False
    if action == "*" or holds == "*":
        return holds == "*"
    reachable, reached = {holds}, set[str]()
    while reachable:
        at = reachable.pop()
        reached.add(at)
        reachable |= set(hierarchy.get(at, set())) - reached
    return action in reached


# --- Scope ---


@pytest.mark.parametrize(
    "value", [Permission.READ, Old.READ, "items:read", Scope("items:read")], ids=lambda v: repr(type(v))
)
def test_a_scope_is_its_text(value: str) -> None:
    """A text, a member of a str Enum and a scope all become the same scope, which is a str."""
    scope = Scope(value)
    assert type(scope) is Scope
    assert not hasattr(scope, "__dict__")
    assert (scope, str(scope), hash(scope)) == ("items:read", "items:read", hash("items:read"))
    assert pickle.loads(pickle.dumps(scope)) == scope  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("value", "resource", "action"),
    [
        ("items:read", "items", "read"),
        ("items:read:all", "items", "read:all"),
        ("https://api.example/read", "https", "//api.example/read"),
        ("openid", "openid", None),
        ("items:", "items", ""),
        (":read", "", "read"),
        ("*", "*", None),
    ],
)
def test_a_scope_is_split_at_its_first_colon(value: str, resource: str, action: str | None) -> None:
    """The order is resource, then action; a scope without a colon has no action."""
    assert (Scope(value).resource, Scope(value).action) == (resource, action)


@pytest.mark.parametrize(
    "value",
    ["", " ", "items:read items:edit", "items:read\n", 'a"b', "a\\b", "é", "items\u00a0", "\x7f", "a\tb", "\u0131"],
)
def test_a_text_that_is_no_scope(value: str) -> None:
    """A text with a character outside of RFC 6749's scope-token is refused, with the rule in the message."""
    with pytest.raises(ConfigurationError) as error:
        Scope(value)
    assert str(error.value) == (
        f"{value!r} is not a scope: one or more visible ASCII characters without the quotation mark and the backslash"
        " (RFC 6749 3.3); pass several scopes as several arguments"
    )


@pytest.mark.parametrize("value", [None, 1, b"items:read", Number.ONE, ["items:read"]], ids=repr)
def test_something_else_that_is_no_scope(value: Any) -> None:
    """Anything but text is refused, an Enum of numbers included."""
    with pytest.raises(ConfigurationError, match="is not a scope"):
        Scope(value)


@example("items:read")
@example("!#[]~")
@example("")
@given(st.text(max_size=8))
def test_scope_characters(value: str) -> None:
    """Exactly the texts of one or more scope-token characters are scopes."""
    if value and SCOPE_CHARACTERS.issuperset(value):
        assert Scope(value) == value
    else:
        with pytest.raises(ConfigurationError):
            Scope(value)


# --- what a claim grants ---


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("items:read items:edit", {"items:read", "items:edit"}),
        ("  items:read   items:read ", {"items:read"}),
        ("", set()),
        ("items:read\titems:edit", {"items:read\titems:edit"}),
        ("items:read\u00a0items:edit\x85x\ny\u2003z", {"items:read\u00a0items:edit\x85x\ny\u2003z"}),
        ("items:read,items:edit", {"items:read,items:edit"}),
        (["items:read", "items:edit"], {"items:read", "items:edit"}),
        (("items:read",), {"items:read"}),
        ({"items:read"}, {"items:read"}),
        (frozenset({"items:read"}), {"items:read"}),
        (["items:read items:edit", ""], {"items:read items:edit"}),
        (["items:read", 1, None, ["items:edit"], {"a": 1}], {"items:read"}),
        ({"items:read": True}, set()),
        (b"items:read", set()),
        (None, set()),
        (True, set()),
        (1, set()),
    ],
)
def test_the_scopes_in_a_claim(value: object, scopes: set[str]) -> None:
    """A text is split at U+0020 only, a list holds one scope an entry, and another type grants nothing."""
    assert scopes_of(value) == scopes


@given(st.lists(st.text(st.characters(exclude_characters=" "), min_size=1)), st.integers(1, 3))
def test_scopes_survive_being_joined(scopes: list[str], spaces: int) -> None:
    """Whatever texts without a space are joined by spaces come apart as they were, and as a list they are the same."""
    assert scopes_of((" " * spaces).join(scopes)) == set(scopes) == scopes_of(scopes)


# --- validators ---


@pytest.mark.parametrize("validator", [SimpleScopeValidator(), HierarchicalScopeValidator()])
@pytest.mark.parametrize("collect", [" ".join, list, tuple, set, frozenset, dict.fromkeys, iter])
def test_granted_scopes_come_in_any_iterable(
    validator: ScopeValidator, collect: Callable[[Iterable[str]], Iterable[str]]
) -> None:
    """Granted scopes may be the text of a claim, or any iterable of texts."""
    assert validator.has_scope("items:read", collect(["x:y", "items:read"]))
    assert not validator.has_scope("items:read", collect(["x:y", "items:rea"]))


@given(st.text("ab:* ", max_size=4), st.lists(st.text("ab:* ", max_size=4)))
def test_the_simple_validator_is_verbatim(required: str, granted: list[str]) -> None:
    """Under SimpleScopeValidator a scope is covered by itself alone, and no wildcard is one."""
    assert SimpleScopeValidator().has_scope(required, frozenset(granted)) == (required in granted)


PARTS = st.sampled_from(
    ["items", "item", "ITEMS", "users", "*", "", "read", "Read", "write", "edit", "admin", "publish", "owner", "a:b"]
)
SCOPES = st.one_of(PARTS, st.builds("{}:{}".format, PARTS, PARTS), st.text("ab:*", max_size=5))


@pytest.mark.parametrize("kind", [HierarchicalScopeValidator, Ranks, Circle, Owner])
@given(required=SCOPES, granted=st.lists(SCOPES, max_size=4))
def test_the_hierarchical_validator(kind: type[HierarchicalScopeValidator], required: str, granted: list[str]) -> None:
    """It agrees with the documented rules read out one by one, whatever is granted."""
    expected = any(covers(scope, required, kind.scope_hierarchy) for scope in granted)
    assert kind().has_scope(required, frozenset(granted)) == expected


@pytest.mark.parametrize(
    ("required", "covering", "not_covering"),
    [
        ("items:read", "items:read", "items:rea"),
        ("items:read", "items:edit", "users:edit"),
        ("items:read", "items:*", "Items:*"),
        ("items:read", "*:read", "*:READ"),
        ("items:read", "*:*", "*"),
        ("items:edit", "items:edit", "items:read"),
        ("items:unheard-of", "items:*", "items:edit"),
        ("items:*", "items:*", "items:edit"),
        ("items:*", "*:*", "*:edit"),
        ("*:read", "*:edit", "items:*"),
        ("items:a:b", "items:a:b", "items:a"),
        ("items:a:b", "items:*", "items:a:*"),
        ("openid", "openid", "openid:*"),
        ("*", "*", "*:*"),
    ],
)
def test_the_documented_wildcards(required: str, covering: str, not_covering: str) -> None:
    """Each wildcard covers what the documentation lists, and its nearest neighbour does not."""
    validator = HierarchicalScopeValidator()
    for granted, expected in ((covering, True), (not_covering, False)):
        assert validator.has_scope(required, [granted]) is expected
        assert covers(granted, required, validator.scope_hierarchy) is expected


@pytest.mark.parametrize("kind", [SimpleScopeValidator, HierarchicalScopeValidator])
@pytest.mark.parametrize("required", [None, 5, b"items:read"])
def test_other_types_are_not_covered(kind: type[Any], required: Any) -> None:
    """A validator that the application calls itself returns False for it."""
    assert not kind().has_scope(required, ["items:read", "*:*", "*"])


@pytest.mark.parametrize("required", ["items:", ":read", ":", ":*", "*:"])
def test_nothing_covers_an_empty_segment(required: str) -> None:
    """An empty resource or action is covered by nothing, itself included."""
    for granted in (required, "*:*", "items:*", "*:read", "*", ":read", "items:"):
        assert not HierarchicalScopeValidator().has_scope(required, [granted])
        assert not covers(granted, required, {})


@example("*0", HierarchicalScopeValidator)
@example("*0", SimpleScopeValidator)
@given(st.text(min_size=1), st.sampled_from([HierarchicalScopeValidator, SimpleScopeValidator]))
def test_no_unicode_normalisation(text: str, kind: type[HierarchicalScopeValidator | SimpleScopeValidator]) -> None:
    """Nothing but the same code points covers a scope: no folding of case, no normal form."""
    wildcard = "*" if kind is HierarchicalScopeValidator else text
    for other in (text.upper(), text.lower(), text.casefold(), f"{text} ", f" {text}", text[:-1]):
        assert kind().has_scope(f"items:{text}", [f"items:{other}"]) == (other in {text, wildcard})


def test_an_own_hierarchy_is_transitive() -> None:
    """An action covers what the actions below it cover; the default actions mean nothing in it."""
    assert Ranks().has_scope("items:read", ["items:admin"])
    assert Ranks().has_scope("items:announce", ["items:publish"])
    assert not Ranks().has_scope("items:announce", ["items:admin"])
    assert not Ranks().has_scope("items:read", ["items:edit"])
    assert Owner().has_scope("items:read", ["items:owner"])
    assert not Owner().has_scope("items:*", ["items:owner"])


def test_what_covers_a_scope_is_worked_out_once() -> None:
    """The answer for a required scope is kept, and of however many scopes no more than 1024."""
    validator = HierarchicalScopeValidator()
    for number in (*range(1500), *range(1499, 1499 - 1024, -1)):
        assert validator.has_scope(f"items:{number}", ["items:*"])
    kept = validator._covering.cache_info()
    assert (kept.misses, kept.hits, kept.currsize) == (1500, 1024, 1024)


@pytest.mark.parametrize("lower", ["read", ["read"], None])
def test_a_hierarchy_of_something_else(lower: Any) -> None:
    """Lower actions that are not a set are refused when the class is defined, with an example."""
    with pytest.raises(ConfigurationError) as error:
        type("Wrong", (HierarchicalScopeValidator,), {"scope_hierarchy": {"edit": lower}})
    assert str(error.value) == f"scope_hierarchy['edit'] is a set of actions, such as {{\"read\"}}, not {lower!r}"


# --- requirements in an application ---


class Tokens(ScopesAuth):
    """An Auth whose tokens are their own claims: the subject, a slash, and scopes with a tilde for each space."""

    async def verify(self, raw: str) -> dict[str, Any]:
        """Refuse a token without a slash."""
        subject, slash, scopes = raw.partition("/")
        if not slash:
            raise Unauthorized(reason="malformed")
        return {"sub": subject, "scope": scopes.replace("~", " ")}


def bearer(scopes: str) -> list[tuple[bytes, bytes]]:
    """Return the header of a token with these scopes, separated by spaces."""
    return [(b"authorization", f"Bearer ada/{scopes.replace(' ', '~')}".encode())]


def missing(scope: str, required: str) -> tuple[int, str, str]:
    """Return the refusal of a missing scope."""
    challenge = f'Bearer realm="api", error="insufficient_scope", scope="{required}"'
    return 403, f"Token is missing required scope: {scope}", challenge


def test_requirements_add_up() -> None:
    """Scopes required by application, include, router, route, sub-dependency and parameter must all be there."""
    auth = Tokens()
    names = ["app", "include", "router", "route", "sub", "parameter"]
    app = FastAPI(dependencies=[auth.requires("app")])
    router = APIRouter(dependencies=[auth.requires("router")])

    async def sub(claims: Annotated[dict[str, Any], auth.requires("sub")]) -> None: ...

    @router.get("/", dependencies=[auth.requires("route"), Depends(sub)])
    async def endpoint(claims: Annotated[dict[str, Any], auth.requires("parameter")]) -> str:
        return str(claims["scope"])

    app.include_router(router, dependencies=[auth.requires("include")])
    assert request(app, headers=bearer(" ".join(names))).json == " ".join(names)
    for one in names:
        answer = request(app, headers=bearer(" ".join(name for name in names if name != one)))
        assert answer.refusal == missing(one, one)


def test_all_of_and_any_of() -> None:
    """requires() wants every scope and names the first that is missing, requires_any() wants one."""
    auth = Tokens()
    app = FastAPI()

    @app.get("/all", dependencies=[auth.requires("a", "b")])
    async def every() -> None: ...

    @app.get("/any", dependencies=[auth.requires_any("a", "b")])
    async def some() -> None: ...

    assert request(app, "/all", bearer("a b")).status == 200
    assert request(app, "/all", bearer("b")).refusal == missing("a", "a b")
    assert request(app, "/all", bearer("a")).refusal == missing("b", "a b")
    assert request(app, "/any", bearer("b")).status == 200
    assert request(app, "/any", bearer("c")).refusal == missing("a or b", "a b")
    with pytest.raises(ConfigurationError, match="at least one scope"):
        auth.requires_any()


def test_the_granted_set_is_apart_from_the_claims() -> None:
    """A guard that runs later is not impressed by scopes that the application writes into the claims."""
    auth = Tokens()
    app = FastAPI()

    async def generous(claims: Annotated[dict[str, Any], auth.authenticated()]) -> None:
        claims["scope"] = "a b"

    for path, guard in (("/all", auth.requires("a")), ("/any", auth.requires_any("a")), ("/own", auth.granted())):

        @app.get(path, dependencies=[Depends(generous)])
        async def endpoint(allowed: Annotated[Any, guard]) -> Any:
            return sorted(allowed)

    assert request(app, "/all", bearer("c")).refusal == missing("a", "a")
    assert request(app, "/any", bearer("c")).refusal == missing("a", "a")
    assert request(app, "/own", bearer("c")).json == ["c"]
    assert request(app, "/all", bearer("a")).status == 200


def test_no_two_guards_are_equal() -> None:
    """FastAPI treats equal callables as one and caches the result, so that no two guards ever compare equal."""
    first, second = Tokens(), Tokens()
    guards = [
        made
        for auth in (first, second)
        for made in (
            *(auth.dependency, auth.optional_dependency, auth.optional(ignore_invalid=True).dependency),
            *(auth.requires_any("a").dependency, auth.requires_any("a").dependency),
            *(auth.requires_role("a").dependency, auth.requires_admin().dependency, auth.granted().dependency),
        )
    ]
    assert len(set(guards)) == len(guards)
    app = FastAPI()

    @app.get("/", dependencies=[first.requires_any("a"), first.requires_any("b")])
    async def endpoint() -> None: ...

    assert request(app, headers=bearer("a b")).status == 200
    assert request(app, headers=bearer("a")).refusal == missing("b", "b")


def test_a_bad_token_is_no_missing_scope() -> None:
    """An invalid token is a 401, whatever scopes the route requires."""
    auth = Tokens()
    app = FastAPI(dependencies=[auth.requires("a"), auth.requires_any("b")])

    @app.get("/")
    async def endpoint() -> None: ...

    challenge = 'Bearer realm="api", error="invalid_token", error_description="The access token is invalid"'
    answer = request(app, headers=[(b"authorization", b"Bearer nonsense")])
    assert (answer.status, answer.header("www-authenticate")) == (401, challenge)
    assert request(app, headers=bearer("a b")).status == 200


def test_everything_of_a_role_and_of_a_token() -> None:
    """A bare ``*`` of a role covers every scope; in a token it is a scope like any other, as under Simple."""
    granted = {"scope": "*"}
    named = {"roles": ["root"]}
    hierarchical = Tokens(roles={"root": ["*"]})
    simple = Tokens(scope_validator=SimpleScopeValidator(), roles={"root": ["*"]})
    assert hierarchical.covers(named, "items:read", "users:*", "openid")
    assert not hierarchical.covers(granted, "items:read")
    assert hierarchical.covers(granted, "*")
    assert not simple.covers(named, "items:read")
    assert simple.covers(named, "*")


class Longest:
    """An own strategy: a scope covers all that starts with it."""

    def has_scope(self, scope: str, granted_scopes: Iterable[str]) -> bool:
        """Compare by prefix."""
        return any(scope.startswith(granted) for granted in granted_scopes)


@pytest.mark.parametrize(("hierarchy", "found"), [(["read"], "list"), (None, "NoneType"), ("read", "str")])
def test_a_hierarchy_that_is_no_mapping(hierarchy: Any, found: str) -> None:
    """A hierarchy of another kind is refused where the subclass is written, with an example and what it is."""
    with pytest.raises(ConfigurationError) as error:
        type("Own", (HierarchicalScopeValidator,), {"scope_hierarchy": hierarchy})
    example = '{"edit": {"read"}}'
    assert str(error.value) == f"scope_hierarchy maps each action to the lower ones, such as {example}, not a {found}"


def test_an_own_strategy() -> None:
    """A validator is anything with has_scope; an object without it raises ConfigurationError when constructed."""
    auth = Tokens(scope_validator=Longest())
    assert auth.covers({"scope": "items"}, "items:read")
    assert not auth.covers({"scope": "users"}, "items:read")
    with pytest.raises(ConfigurationError, match=r"pass an object with has_scope"):
        Tokens(scope_validator=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"pass an object with has_scope"):
        Tokens(scope_validator=Longest)  # type: ignore[arg-type]


class Named:
    """A validator with a setting."""

    def __init__(self, name: str) -> None:
        """Have a name."""
        self.name = name

    def has_scope(self, scope: str, granted_scopes: Iterable[str]) -> bool:
        """Return whether it is the name."""
        return scope == self.name


class Slotted:
    """A validator without a dict of its own."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        """Have a name."""
        self.name = name

    def has_scope(self, scope: str, granted_scopes: Iterable[str]) -> bool:
        """Return whether it is the name."""
        return scope == self.name


def test_validators_that_decide_alike() -> None:
    """Two of one class with the same settings do, whether they were used before or not."""
    used = HierarchicalScopeValidator()
    assert used.has_scope("items:read", {"items:edit"})
    assert decide_alike(used, HierarchicalScopeValidator())
    assert decide_alike(Named("a"), Named("a"))
    assert not decide_alike(Named("a"), Named("b"))
    assert not decide_alike(used, Ranks())
    assert not decide_alike(used, SimpleScopeValidator())
    # Of these nothing is known but that they are one.
    one = Slotted("a")
    assert decide_alike(one, one)
    assert not decide_alike(one, Slotted("a"))
    assert [validator.has_scope("a", ()) for validator in (one, Named("b"))] == [True, False]
