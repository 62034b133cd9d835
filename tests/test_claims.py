"""Grants read from a claims dict."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_guard import ConfigurationError
from fastapi_guard.claims import _KNOWN_GRANTS, NO_GRANTS, GrantRules, Grants, Subject, copied, subject_of, tenants_of

ROLES = {"editor": ["content:edit", "content:publish"], "root": ["*"], "nobody": []}


def grants(claims: Mapping[str, Any], **rules: Any) -> Grants:
    """Return what claims grant, asked twice: what is remembered is what was read."""
    asked = GrantRules(**rules)
    first, second = asked.grants_of(claims), asked.grants_of(claims)
    assert first == second
    return first


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"scope": "a b"}, {"a", "b"}),
        ({"scp": "a b"}, {"a", "b"}),
        ({"scp": ["a", "b"]}, {"a", "b"}),
        ({"scope": "a", "scp": ["b"]}, {"a", "b"}),
        ({"scope": None, "scp": "a"}, {"a"}),
        ({"scope": {"a": 1}, "scp": 5}, set()),
        ({"permissions": ["a"]}, set()),
        ({"Scope": "a"}, set()),
    ],
)
def test_scopes_of_the_default_claims(claims: dict[str, Any], scopes: set[str]) -> None:
    """``scope`` and ``scp`` grant together; of another name or type nothing does."""
    assert grants(claims).scopes == scopes


def test_configured_scope_claims() -> None:
    """The claims named are the only ones that grant."""
    assert grants({"permissions": ["a"], "scope": "b"}, scope_claims=("permissions",)).scopes == {"a"}
    assert grants({"scope": "b"}, scope_claims=()) == NO_GRANTS


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({"roles": ["a", "b"]}, {"a", "b"}),
        ({"role": "a"}, {"a"}),
        ({"roles": "a b"}, {"a b"}),
        ({"roles": ["a"], "role": "b"}, {"a", "b"}),
        ({"roles": ["a", 1, None, "", {}]}, {"a"}),
        ({"roles": "", "role": 1}, set()),
        ({"roles": {"a": True}}, set()),
        ({}, set()),
    ],
)
def test_roles_of_the_default_claims(claims: dict[str, Any], roles: set[str]) -> None:
    """A role claim is the name of one role or a list of names; of another type it names none."""
    assert grants(claims).roles == roles


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({"realm_access": {"roles": ["a"]}}, {"a"}),
        ({"realm_access": {"roles": "a"}}, {"a"}),
        ({"realm_access.roles": ["b"], "realm_access": {"roles": ["a"]}}, {"b"}),
        ({"realm_access": {"other": ["a"]}}, set()),
        ({"realm_access": "roles"}, set()),
        ({"realm_access": ["roles"]}, set()),
        ({"realm_access": None}, set()),
        ({}, set()),
    ],
)
def test_a_dotted_role_claim(claims: dict[str, Any], roles: set[str]) -> None:
    """A dotted name is first the name of a claim, then a path into objects; a path into nowhere names no role."""
    assert grants(claims, role_claims=("realm_access.roles",)).roles == roles


def test_a_namespaced_role_claim() -> None:
    """A claim that is called like an URL is found by its name, dots and all."""
    name = "https://example.com/roles"
    assert grants({name: ["a"]}, role_claims=(name,)).roles == {"a"}


def test_a_dotted_claim_is_not_remembered_under_another() -> None:
    """Two tokens that differ only inside of an object are distinguished."""
    rules = GrantRules(role_claims=("realm_access.roles",))
    assert rules.grants_of({"realm_access": {"roles": ["a"]}}).roles == {"a"}
    assert rules.grants_of({"realm_access": {"roles": ["b"]}}).roles == {"b"}
    assert rules.grants_of({"realm_access": "a"}).roles == set()


def test_a_role_is_a_named_set_of_scopes() -> None:
    """The scopes of known roles join those of the claims; an unknown role grants nothing and is still a role."""
    granted = grants({"scope": "a", "roles": ["editor", "stranger"]}, roles=ROLES)
    assert granted.scopes == {"a", "content:edit", "content:publish"}
    assert granted.roles == {"editor", "stranger"}


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({}, {"editor"}),
        ({"roles": []}, {"editor"}),
        ({"roles": "", "role": [""]}, {"editor"}),
        ({"roles": ["nobody"]}, {"nobody"}),
        ({"roles": ["stranger"]}, {"stranger"}),
    ],
)
def test_the_default_role(claims: dict[str, Any], roles: set[str]) -> None:
    """A caller without a role has the default one, with its scopes; a caller with any role has that one."""
    granted = grants(claims, roles=ROLES, default_role="editor")
    assert granted.roles == roles
    assert ("content:edit" in granted.scopes) == (roles == {"editor"})


@pytest.mark.parametrize(
    ("claims", "rules", "everything"),
    [
        ({"roles": "root"}, {"roles": ROLES}, True),
        ({"roles": ["editor", "root"]}, {"roles": ROLES}, True),
        ({"roles": "editor"}, {"roles": ROLES}, False),
        ({"roles": "*"}, {"roles": ROLES}, False),
        ({"scope": "*"}, {"roles": ROLES}, False),
        ({"scope": "*"}, {"trusts_everything": True}, True),
        ({"scope": ["a", "*"]}, {"trusts_everything": True}, True),
        ({"scope": "*:* a*"}, {"trusts_everything": True}, False),
    ],
)
def test_everything(claims: dict[str, Any], rules: dict[str, Any], everything: bool) -> None:
    """A bare ``*`` is everything where the application itself grants it: in a role, in claims it has stored."""
    assert grants(claims, **rules).everything is everything


@pytest.mark.parametrize("value", [False, 1, 1.0, "true", "True", [True], {"a": 1}, None, "yes"])
def test_an_administrator_is_exactly_true(value: object) -> None:
    """Only ``true`` makes an administrator; values that Python treats as equal to it, or as true, do not."""
    rules = GrantRules()
    assert not rules.grants_of({"sub": "ada", "is_admin": value}).is_admin
    assert rules.grants_of({"sub": "ada", "is_admin": True}).is_admin
    assert not rules.grants_of({"sub": "ada", "is_admin": value}).is_admin


@pytest.mark.parametrize("is_admin", [False, True])
def test_an_api_key_is_remembered(is_admin: bool) -> None:
    """Claims about whether the caller is an administrator, as those of every API key are, are read once."""
    rules = GrantRules()
    granted = rules.grants_of({"scope": "a b", "is_admin": is_admin})
    assert granted.is_admin is is_admin
    assert rules.grants_of({"scope": "a b", "is_admin": is_admin}) is granted
    assert rules.grants_of({"scope": "a b", "is_admin": not is_admin}).is_admin is not is_admin


@pytest.mark.parametrize("rules", [{"scope_claims": ("is_admin",)}, {"role_claims": ("is_admin",)}])
def test_the_administrator_mark_as_a_scope_claim(rules: dict[str, Any]) -> None:
    """If the mark is read as scopes or roles too, no value is mistaken for an equal one of another type."""
    shared = GrantRules(**rules)
    for value in ("a", True, 1, None, "a", 1.0, True, False, 0):
        granted = shared.grants_of({"is_admin": value})
        assert granted == GrantRules(**rules).grants_of({"is_admin": value})
        assert granted.is_admin is (value is True)


def test_a_list_of_roles_is_read_once() -> None:
    """The grants of a list of roles, as a login writes it, are cached, and a list is not confused with a text."""
    rules = GrantRules(roles=ROLES)
    granted = rules.grants_of({"scope": "a", "roles": ["editor", "auditor"]})
    assert rules.grants_of({"scope": "a", "roles": ["editor", "auditor"]}) is granted
    assert rules.grants_of({"scope": "a", "roles": "editor auditor"}).roles == {"editor auditor"}
    assert rules.grants_of({"scope": "a", "roles": ["editor", 1]}).roles == {"editor"}
    assert rules.grants_of({"scope": "a", "roles": ["root"]}).roles == {"root"}
    assert rules.grants_of({"scope": "a", "roles": []}).roles == set()
    assert rules.grants_of({"sub": "ada"}) is rules.grants_of({"sub": "eve"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.just(1.0) | st.sampled_from(["", "a", "*", "root", "a b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["roles", "a"]), inner, max_size=2),
    max_leaves=6,
)
NAMES = ["scope", "scp", "roles", "role", "is_admin", "realm_access", "realm_access.roles", "sub"]


@given(st.lists(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4), max_size=5))
def test_what_is_remembered_is_what_was_read(several: list[dict[str, Any]]) -> None:
    """Any JSON is read without an error, and no claims are taken for others that were read before."""
    settings: dict[str, Any] = {"roles": ROLES, "role_claims": ("roles", "role", "realm_access.roles")}
    shared = GrantRules(**settings)
    for claims in several + several:
        granted = shared.grants_of(claims)
        assert granted == GrantRules(**settings).grants_of(claims)
        assert granted.is_admin == (claims.get("is_admin") is True)
        assert all(isinstance(text, str) and text for text in granted.scopes | granted.roles)


def test_what_is_remembered_is_bounded() -> None:
    """The memory of scope texts does not grow with the number of different tokens."""
    rules = GrantRules()
    for number in range(_KNOWN_GRANTS + 10):
        assert rules.grants_of({"scope": f"s{number}"}).scopes == {f"s{number}"}
    assert len(rules._known) == _KNOWN_GRANTS


@pytest.mark.parametrize("name", ["scope_claims", "role_claims"])
@pytest.mark.parametrize("value", ["groups", ("scope", ""), ("scope", 1), None, 5])
def test_claim_names_that_are_none(name: str, value: Any) -> None:
    """One text instead of several, or an entry that is not a name, raises ConfigurationError when constructed."""
    example = "groups" if value == "groups" else name.removesuffix("_claims")
    with pytest.raises(ConfigurationError) as refused:
        GrantRules(**{name: value})
    assert str(refused.value) == f'{name} is a sequence of claim names, such as ("{example}",), not {value!r}'


def test_scope_claims_as_paths() -> None:
    """Only roles are read along a path."""
    with pytest.raises(ConfigurationError, match=r"^scope_claims is a sequence of claim names"):
        GrantRules(scope_claims=[("realm_access", "scopes")])  # type: ignore[list-item]


def test_roles_that_are_none() -> None:
    """A role whose scopes are one text, an invalid scope, and an unknown default role are refused."""
    for wrong in (["editor"], {1: ["content:edit"]}):
        with pytest.raises(ConfigurationError, match=r"^roles maps names to scopes, such as .*, not \S"):
            GrantRules(roles=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"the role 'editor' is a list of scopes, such as \['content:edit'\]"):
        GrantRules(roles={"editor": "content:edit"})
    with pytest.raises(ConfigurationError, match="'content edit' is not a scope"):
        GrantRules(roles={"editor": ["content edit"]})
    with pytest.raises(ConfigurationError, match="default_role 'reader' is not among the roles"):
        GrantRules(roles=ROLES, default_role="reader")
    with pytest.raises(ConfigurationError, match=r"^default_role is the name of a role, not 5$"):
        GrantRules(default_role=5)  # type: ignore[arg-type]
    assert grants({}, default_role="reader").roles == {"reader"}
    assert GrantRules(default_role="reader").default_role == "reader"


def test_the_roles_of_the_caller_are_copied() -> None:
    """Changes that the application makes to its own dict afterwards change no grant."""
    scopes = ["content:edit"]
    roles = {"editor": scopes}
    rules = GrantRules(roles=roles)
    scopes.append("*")
    roles["other"] = ["*"]
    granted = rules.grants_of({"roles": ["editor", "other"]})
    assert granted.scopes == {"content:edit"}
    assert not granted.everything


@pytest.mark.parametrize(
    ("claims", "subject"),
    [
        ({"sub": "ada"}, Subject(None, "ada")),
        ({"iss": "https://id.example", "sub": "ada"}, Subject("https://id.example", "ada")),
        ({"iss": None, "sub": "ada"}, Subject(None, "ada")),
        ({}, None),
        ({"sub": ""}, None),
        ({"sub": 5}, None),
        ({"sub": ["ada"]}, None),
        ({"iss": 5, "sub": "ada"}, None),
        ({"iss": ["https://id.example"], "sub": "ada"}, None),
    ],
)
def test_subjects(claims: dict[str, Any], subject: Subject | None) -> None:
    """An identity is the pair of `iss` and `sub`; claims of another type identify no caller."""
    assert subject_of(claims) == subject


@pytest.mark.parametrize(
    ("claims", "tenants"),
    [
        ({"tenant_id": "acme"}, {"acme"}),
        ({"tenant": "acme"}, {"acme"}),
        ({"tenant_id": None, "tenant": "acme"}, {"acme"}),
        ({"tenant_id": "acme", "tenant": "other"}, {"acme"}),
        ({"tenant_id": "", "tenant": "other"}, set()),
        ({"tenant_id": [], "tenant": "other"}, set()),
        ({"tenant_id": ["acme", 7, True, None, {}]}, {"acme", "7"}),
        ({"tenant_id": 7}, {"7"}),
        ({"tenant_id": False}, set()),
        ({"tenant_id": {"id": "acme"}}, set()),
        ({}, set()),
    ],
)
def test_tenants(claims: dict[str, Any], tenants: set[str]) -> None:
    """The first of the two claims that is there names the tenants; without one there is no tenant."""
    assert tenants_of(claims) == tenants


def test_tenants_of_other_claims() -> None:
    """The names of the claims can be chosen."""
    claims = {"tenant_id": "acme", "org": "other"}
    assert tenants_of(claims, ("org",)) == {"other"}
    assert tenants_of(claims, ("team", "tenant_id")) == {"acme"}


def test_role_claims_that_are_objects() -> None:
    """The objects in an object are roles (Zitadel); a member of another type is not a role."""
    claims = {"roles": {"admin": {"1": "acme.example"}, "off": False, "on": True, "n": None}}
    assert GrantRules().grants_of(claims).roles == {"admin"}


def test_role_claims_as_paths() -> None:
    """A tuple is a path whose steps may have dots."""
    rules = GrantRules(role_claims=[("resource_access", "com.acme.api", "roles"), "realm_access.roles"])
    claims = {"resource_access": {"com.acme.api": {"roles": ["one"]}}, "realm_access": {"roles": ["two"]}}
    assert rules.grants_of(claims).roles == {"one", "two"}
    assert rules.grants_of({"resource_access": 7}).roles == set()
    assert rules.sources_of(claims) == [
        ("role one", "claim resource_access.com.acme.api.roles"),
        ("role two", "claim realm_access.roles"),
    ]
    for wrong in ([()], [("a", "")], [("a", 7)], [7]):
        with pytest.raises(ConfigurationError):
            GrantRules(role_claims=wrong)  # type: ignore[arg-type]


def test_what_grants_nothing_because_of_its_type(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once for each claim, by its name and type alone."""
    rules = GrantRules()
    for _ in range(3):
        assert rules.grants_of({"scope": {"secret": 1}, "roles": 7}) == Grants()
    assert [record.message for record in caplog.records] == [
        "the claim 'scope' grants nothing: it is of the type dict",
        "the claim 'roles' grants nothing: it is of the type int",
    ]


def test_a_path_that_leads_to_another_type(caplog: pytest.LogCaptureFixture) -> None:
    """The claim in which a path begins is named in the log."""
    rules = GrantRules(role_claims=[("resource_access", "shop", "roles")])
    assert rules.grants_of({"resource_access": {"shop": {"roles": 7}}}) == Grants()
    assert [record.message for record in caplog.records] == [
        "the claim 'resource_access' grants nothing: it is of the type int"
    ]


@pytest.mark.parametrize("scopes", [[], ["items:read"], ["items:read", "content:edit"]], ids=repr)
def test_narrowed_claims(scopes: list[str]) -> None:
    """They grant the named scopes alone: no other scope, no role, no administrator; what grants nothing stays."""
    rules = GrantRules(roles=ROLES, role_claims=("roles", "realm.roles"))
    claims = {"sub": "ada", "tenant": "acme", "scope": "items:read items:edit", "scp": ["orders:read"]}
    granting = {"roles": ["root"], "realm": {"roles": ["editor"]}, "realm.roles": "auditor", "is_admin": True}
    narrowed = rules.narrowed({**claims, **granting}, scopes)
    assert narrowed == {"sub": "ada", "tenant": "acme", "is_admin": False, "scope": " ".join(scopes)}
    assert rules.grants_of(narrowed) == Grants(frozenset(scopes))


def test_narrowed_claims_and_the_default_role() -> None:
    """Claims without a role have the default one, so nothing narrower than it can be written."""
    rules = GrantRules(roles={"reader": ["items:read"]}, default_role="reader")
    assert rules.narrowed({"sub": "ada"}, ["orders:read"]) is None
    assert rules.narrowed({"sub": "ada"}, []) is None
    narrowed = rules.narrowed({"sub": "ada"}, ["items:read", "orders:read"])
    assert narrowed == {"sub": "ada", "is_admin": False, "scope": "items:read orders:read"}


def test_the_sources_of_grants() -> None:
    """Each granted scope and role has its source; without a role the default role is one."""
    rules = GrantRules(role_claims=("roles", "realm.roles"), roles={"editor": ["b", "a"]}, default_role="editor")
    claims = {"scope": "x y", "scp": ["z"], "realm": {"roles": ["other"]}}
    assert rules.sources_of(claims) == [
        ("x", "claim scope"),
        ("y", "claim scope"),
        ("z", "claim scp"),
        ("role other", "claim realm.roles"),
    ]
    assert rules.sources_of({}) == [("role editor", "default role"), ("a", "role editor"), ("b", "role editor")]
    assert rules.sources_of({"roles": "editor"})[0] == ("role editor", "claim roles")


@pytest.mark.parametrize(
    ("claims", "roles", "logged"),
    [
        ({"roles": [{"name": "secret"}]}, set(), "a part of the claim 'roles' grants nothing: it is of the type dict"),
        ({"roles": ["a", 7, None]}, {"a"}, "a part of the claim 'roles' grants nothing: it is of the type int"),
        ({"roles": {"a": {}, "b": True}}, {"a"}, "a part of the claim 'roles' grants nothing: it is of the type bool"),
        ({"scope": ["secret", ["a"]]}, set(), "a part of the claim 'scope' grants nothing: it is of the type list"),
        ({"roles": {"a": {"1": "x"}}}, {"a"}, None),
        ({"roles": ["a"], "scope": ["b"]}, {"a"}, None),
        ({"role": "a", "scope": "b", "scp": None}, {"a"}, None),
    ],
    ids=repr,
)
def test_a_part_that_grants_nothing(
    claims: dict[str, Any], roles: set[str], logged: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A member of a list or an object that has another type is logged once too, by its type alone."""
    rules = GrantRules()
    for _ in range(2):
        assert rules.grants_of(claims).roles == roles
    assert [record.message for record in caplog.records] == ([] if logged is None else [logged])


def test_copied_claims() -> None:
    """A copy is equal, and shares no object and no list with what it was made of."""
    claims: dict[str, Any] = {"sub": "ada", "n": None, "roles": ["a", {"b": ["c", 1]}], "realm": {"roles": ["d"]}}
    copy = copied(claims)
    assert copy == claims
    copy["roles"][1]["b"].append("e")
    copy["roles"].append("e")
    copy["realm"]["roles"].append("e")
    copy["realm"]["e"] = copy["e"] = True
    assert claims == {"sub": "ada", "n": None, "roles": ["a", {"b": ["c", 1]}], "realm": {"roles": ["d"]}}
    flat: dict[str, Any] = {"sub": "ada", "n": 1}
    assert copied(flat) == flat
    assert copied(flat) is not flat
