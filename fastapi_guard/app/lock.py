"""The authorization lockfile: every way into an application with what it requires, as text for review.

``authorization_of`` reads an application, ``Authorization.text`` writes the file and ``Authorization.parse`` reads it
again. ``lock_changes`` compares two of them.
"""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Required

from fastapi import FastAPI
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from fastapi_guard.app.audit import methods_of, routes_of_app
from fastapi_guard.app.configure import configuration_of
from fastapi_guard.app.guards import GuardUse, members_of
from fastapi_guard.app.ways import RouteGuards
from fastapi_guard.auth import Auth
from fastapi_guard.exceptions import ConfigurationError

VERSION: Final = 1
# The states of a way without a guard.
PUBLIC: Final = "public"
UNGUARDED: Final = "unguarded"
DOCUMENTATION: Final = "documentation"
_STRICT: Final = ConfigDict(extra="forbid", strict=True)
_HEADER: Final = (
    "# Every way into the application, and what it requires.\n"
    "# Written by fastapi-guard audit --lock, compared by --check: review a change as a change of permissions.\n"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """The requirement of one Auth before a way in.

    Attributes:
        auth: The name of the Auth.
        via: The names of the members whose credential an AnyAuth accepts; empty for any other Auth.
        scopes: The scopes that are required, all of them, sorted.
        rules: What is required beyond, sorted: "any of a, b", "role editor", "owner author_id".
        optional: Whether it lets an anonymous caller pass.
        presence_only: Whether it verifies nothing, so that any credential passes.
    """

    auth: str
    via: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    optional: bool = False
    presence_only: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict of what JSON has, without the members that are empty, but with its Auth."""
        members = {
            "via": list(self.via),
            "scopes": list(self.scopes),
            "rules": list(self.rules),
            "optional": self.optional,
            "presence_only": self.presence_only,
        }
        return {"auth": self.auth, **{name: value for name, value in members.items() if value}}

    def __str__(self) -> str:
        """Return it in words: ``jwt: items:edit; owner author_id``."""
        via = f" via {' or '.join(self.via)}" if self.via else ""
        marks = "".join(
            f" ({mark})"
            for mark, is_set in (("optional", self.optional), ("presence only", self.presence_only))
            if is_set
        )
        required = "; ".join((*self.scopes, *self.rules))
        return f"{self.auth}{via}{marks}" + (f": {required}" if required else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """The access to a way in: all of ``requirements`` have to be met; without any, ``state`` is the reason.

    Attributes:
        requirements: In the order of their Auths.
        state: "public" where ``configure_app`` lists it, "documentation" for a page that FastAPI added, "unguarded", or
            empty where there are requirements.
    """

    requirements: tuple[Requirement, ...] = ()
    state: str = UNGUARDED

    def as_json(self) -> Any:
        """Return it as JSON has it: a list of requirements, or the state."""
        return [requirement.as_dict() for requirement in self.requirements] or self.state

    def __str__(self) -> str:
        """Return it in words."""
        return " and ".join(map(str, self.requirements)) or self.state


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleRules:
    """The scopes that the roles of an Auth grant.

    Attributes:
        roles: The scopes of each role, sorted.
        default_role: The role of a credential that names none.
    """

    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default_role: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict of what JSON has."""
        default = {} if self.default_role is None else {"default_role": self.default_role}
        return {**default, "roles": {role: list(scopes) for role, scopes in self.roles.items()}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Authorization:
    """Every way into an application with what it requires, and what roles grant.

    Attributes:
        ways: By method and path, such as ``GET /items/{item_id}``.
        auths: The roles, by the name of the Auth.
    """

    ways: Mapping[str, Access]
    auths: Mapping[str, RoleRules] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of the lockfile, in TOML: a line for each way in, in the order of paths."""
        lines = [_HEADER, f"version = {VERSION}\n", "\n[ways]\n"]
        lines += [f"{_text(way)} = {_text(access.as_json())}\n" for way, access in self.ways.items()]
        for name, rules in self.auths.items():
            lines.append(f"\n[auths.{_text(name)}]\n")
            lines += [f"{key} = {_text(value)}\n" for key, value in rules.as_dict().items() if key != "roles"]
            lines += [f"roles.{_text(role)} = {_text(scopes)}\n" for role, scopes in rules.as_dict()["roles"].items()]
        return "".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict of what JSON has."""
        ways = {way: access.as_json() for way, access in self.ways.items()}
        return {"version": VERSION, "ways": ways, "auths": {name: auth.as_dict() for name, auth in self.auths.items()}}

    @classmethod
    def parse(cls, text: str) -> "Authorization":
        """Return what the text of a lockfile contains.

        Raises:
            ConfigurationError: It is not a lockfile of this version.
        """
        try:
            document = _DOCUMENT.validate_python(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            msg = f"the lockfile is not TOML: {error}"
            raise ConfigurationError(msg) from None
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            msg = f"the lockfile cannot be read: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            raise ConfigurationError(msg) from None
        ways = {way: _access(value) for way, value in document["ways"].items()}
        auths = {name: _role_rules(value) for name, value in document.get("auths", {}).items()}
        return cls(ways=ways, auths=auths)


def authorization_of(app: FastAPI) -> Authorization:
    """Return every way into ``app`` with what it requires, in the order of paths, and what roles grant.

    Routes, WebSockets, mounts, handlers of 404 and the documentation pages are among them, as in the audit, and tools
    of MCP servers that have guards of their own, such as ``TOOL /mcp#delete``.
    """
    routes, configuration = routes_of_app(app), configuration_of(app)
    found: list[tuple[str, str, Access]] = [
        (path, "GET", Access(state=DOCUMENTATION)) for path in sorted(routes.documentation)
    ]
    listed = {(path, method) for path, method, _ in found}
    for way in routes.ways:
        state = DOCUMENTATION if way.is_documentation else UNGUARDED
        state = PUBLIC if configuration is not None and way in configuration.public else state
        requirements = requirements_of(way.guards)
        access = Access(requirements=requirements, state="" if requirements else state)
        for method in methods_of(way):
            if (way.path, method) in listed and way.is_documentation:
                found = [entry for entry in found if entry[:2] != (way.path, method)]
            found.append((way.path, method, access))
    for path, name, uses in routes.tools:
        found.append((f"{path}#{name}", "TOOL", Access(requirements=requirements_of(uses), state="")))
    ways = _numbered(sorted(found, key=lambda entry: entry[:2]))
    return Authorization(ways=ways, auths=dict(_roles_of(auths_of(routes.ways))))


def requirements_of(uses: Iterable[GuardUse]) -> tuple[Requirement, ...]:
    """Return what guards require, one Requirement for the guards of an Auth that accept the same credentials."""
    merged: dict[tuple[Any, ...], tuple[set[str], set[str]]] = {}
    for use in uses:
        guard = use.guard
        via = tuple(member.name for member in members_of(guard)) if getattr(guard, "members", ()) else ()
        # An optional guard does not waive the scopes that an enclosing dependency requires.
        key = (guard.auth.name, via, guard.optional and not use.scopes, guard.checks_presence_only)
        scopes, rules = merged.setdefault(key, (set(), set()))
        scopes.update(use.scopes)
        rules.update(() if use.rule is None else (use.rule,))
    return tuple(
        Requirement(
            auth=auth,
            via=via,
            scopes=tuple(sorted(scopes)),
            rules=tuple(sorted(rules)),
            optional=optional,
            presence_only=presence_only,
        )
        for (auth, via, optional, presence_only), (scopes, rules) in merged.items()
    )


def auths_of(ways: Iterable[RouteGuards]) -> dict[str, Auth[Any]]:
    """Return the Auths of an application by name, the members of an AnyAuth too."""
    found: dict[str, Auth[Any]] = {}
    for use in (use for way in ways for use in way.guards):
        for auth in (use.guard.auth, *members_of(use.guard)):
            found.setdefault(auth.name, auth)
    return found


def _numbered(entries: Iterable[tuple[str, str, Access]]) -> dict[str, Access]:
    # Of two routes with one path FastAPI serves the first. Both are listed, since the order is the application's.
    ways: dict[str, Access] = {}
    for path, method, access in entries:
        way, number = f"{method} {path}", 1
        while way in ways:
            number += 1
            way = f"{method} {path} #{number}"
        ways[way] = access
    return ways


def _roles_of(auths: Mapping[str, Auth[Any]]) -> Iterator[tuple[str, RoleRules]]:
    for name, auth in sorted(auths.items()):
        rules = auth.dependency.decision.rules
        if rules is not None and (rules.roles or rules.default_role is not None):
            roles = {role: tuple(sorted(scopes)) for role, scopes in sorted(rules.roles.items())}
            yield name, RoleRules(roles=roles, default_role=rules.default_role)


class _Members(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    auth: Required[str]
    via: list[str]
    scopes: list[str]
    rules: list[str]
    optional: bool
    presence_only: bool


# A way in without requirements has a state.
_Requirements = Annotated[list[_Members], Field(min_length=1)]


class _Roles(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    default_role: str
    roles: dict[str, list[str]]


class _Document(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    version: Required[Literal[1]]
    ways: Required[dict[str, Literal["public", "unguarded", "documentation"] | _Requirements]]
    auths: dict[str, _Roles]


_DOCUMENT: Final = TypeAdapter(_Document)


def _access(value: str | list[_Members]) -> Access:
    if isinstance(value, str):
        return Access(state=value)
    return Access(requirements=tuple(map(_requirement, value)), state="")


def _requirement(members: _Members) -> Requirement:
    return Requirement(
        auth=members["auth"],
        via=tuple(members.get("via", ())),
        scopes=tuple(members.get("scopes", ())),
        rules=tuple(members.get("rules", ())),
        optional=members.get("optional", False),
        presence_only=members.get("presence_only", False),
    )


def _role_rules(value: _Roles) -> RoleRules:
    roles = {role: tuple(scopes) for role, scopes in value.get("roles", {}).items()}
    return RoleRules(roles=roles, default_role=value.get("default_role"))


def _text(value: Any) -> str:
    # A string of JSON is one of TOML, as long as no character is written as two halves.
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_text(member)}" for name, member in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
