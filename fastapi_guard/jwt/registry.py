"""A claims registry of joserfc without its clock: whether a token has expired is decided in one place, JWTConfig's.

joserfc checks ``exp``, ``nbf`` and ``iat`` by a clock and a leeway of its own, which would cancel ``leeway_seconds``.
"""

from copy import copy

from joserfc.jwt import JWTClaimsRegistry

from fastapi_guard.exceptions import ConfigurationError


class _Timeless(JWTClaimsRegistry):
    """Of the times, only what the options ask of them."""

    def validate_exp(self, value: object) -> None:
        """Check ``exp`` against its options."""
        self.check_value("exp", value)

    def validate_nbf(self, value: object) -> None:
        """Check ``nbf`` against its options."""
        self.check_value("nbf", value)

    def validate_iat(self, value: object) -> None:
        """Check ``iat`` against its options."""
        self.check_value("iat", value)


def timeless(registry: JWTClaimsRegistry) -> JWTClaimsRegistry:
    """Return ``registry`` with all its checks, those of a subclass included, but joserfc's of the times.

    Raises:
        ConfigurationError: It is not a JWTClaimsRegistry.
    """
    if not isinstance(registry, JWTClaimsRegistry):
        msg = f"claims_registry is a joserfc.jwt.JWTClaimsRegistry, not {type(registry).__name__}"
        raise ConfigurationError(msg)
    kind = type(registry)
    ours = copy(registry)
    # Behind a subclass and before joserfc's own, so that a subclass reaches it by super().
    ours.__class__ = _Timeless if kind is JWTClaimsRegistry else type(kind.__name__, (kind, _Timeless), {})
    return ours
