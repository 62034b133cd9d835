"""The schemes of several Auths as one, for an AnyAuth."""

from collections.abc import Sequence

from starlette.requests import HTTPConnection

from fastapi_guard.schemes.base import Scheme
from fastapi_guard.schemes.challenges import merged


class AnyScheme(Scheme):
    """The schemes of several Auths, challenged together."""

    def __init__(self, schemes: Sequence[Scheme]) -> None:
        """Stand for ``schemes``, in their order."""
        self.schemes: tuple[Scheme, ...] = tuple(schemes)
        first = self.schemes[0]
        super().__init__(first.model, first.scheme_name, first.realm)
        self.is_cookie: bool = any(scheme.is_cookie for scheme in self.schemes)

    def extract(self, connection: HTTPConnection) -> str | None:
        """Return the credential of the first scheme that finds one."""
        return next((raw for raw in (scheme.extract(connection) for scheme in self.schemes) if raw is not None), None)

    def challenge(self, **parameters: str) -> str:
        """Return the challenges of all, each with ``parameters``."""
        return merged(*(scheme.challenge(**parameters) for scheme in self.schemes))

    @property
    def names_scopes(self) -> bool:
        """Whether the challenge of one of them names the scopes of the route by default."""
        return any(scheme.names_scopes for scheme in self.schemes)

    def missing(self, scopes: Sequence[str]) -> str:
        """Return the challenges of all for a request without a credential."""
        return merged(*(scheme.missing(scopes) for scheme in self.schemes))

    def refusal(self, error: str, description: str) -> str:
        """Return the challenges of all for an invalid credential."""
        return merged(*(scheme.refusal(error, description) for scheme in self.schemes))

    @property
    def plain_challenge(self) -> str:
        """The challenges of all for a request without a credential."""
        return merged(*(scheme.plain_challenge for scheme in self.schemes))
