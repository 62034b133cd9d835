"""Scale what a slow test does to the profile of hypothesis."""

from hypothesis import HealthCheck, settings


def at_most(max_examples: int, *suppressed: HealthCheck) -> settings:
    """Return the settings of the profile with no more than `max_examples`, and without these checks of health."""
    profile = settings.default
    return settings(
        max_examples=min(max_examples, profile.max_examples),
        suppress_health_check=[*profile.suppress_health_check, *suppressed],
    )


def scaled(number: int) -> int:
    """Return `number`, of which the profile `quick` has a quarter, as it has of the examples of a property."""
    return min(number, number * settings.default.max_examples // 100)
