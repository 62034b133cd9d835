"""Bound the number of examples of a slow property."""

from hypothesis import HealthCheck, settings


def at_most(max_examples: int, *suppressed: HealthCheck) -> settings:
    """Return the settings of the profile with no more than `max_examples`, and without these checks of health."""
    profile = settings.default
    return settings(
        max_examples=min(max_examples, profile.max_examples),
        suppress_health_check=[*profile.suppress_health_check, *suppressed],
    )
