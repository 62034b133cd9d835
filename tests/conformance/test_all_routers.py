"""Every router of the package against its own OpenAPI document, in one application.

The test that takes longest is the first of the session.
"""

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from conformance.calls import GENERATED, SERVED
from conformance.everything import Everything, served
from conformance.refusals import NEVER_FORBIDDEN, body_of, counted_alone, everything_is_refused
from conformance.successes import everything_succeeds
from fastapi_guard.login.throttle import Throttle


def statuses(found: dict[str, set[int]], *kinds: int) -> dict[str, set[int]]:
    """Return the statuses of these kinds, such as 2 for those of a success, by operation."""
    return {label: {status for status in of if status // 100 in kinds} for label, of in found.items()}


def test_refusals_of_every_router(everything: Everything) -> None:
    """Each documented refusal of each operation is the response to some request, and no other one is."""
    everything_is_refused(everything)
    expected = everything.documented
    for label in NEVER_FORBIDDEN:
        expected[label].remove(403)
    for label in counted_alone(everything):
        expected[label].remove(503)
    answered = {label: everything.answered[label] for label in expected}
    assert statuses(answered, 4, 5) == statuses(expected, 4, 5)


def test_generated_requests_of_every_router(everything: Everything) -> None:
    """Any request of any caller gets a documented response, and never a 5xx."""
    for operation in everything.operations.values():
        # An operation may end the credentials that it is called with.
        callers = [None, "x.y.z", everything.token(), everything.cookie()]

        @settings(GENERATED, max_examples=5)
        @given(case=operation.as_strategy(GenerationMode.POSITIVE), caller=st.sampled_from(callers))
        def answered(case: Any, caller: str | None) -> None:
            everything.send(case, caller, SERVED)

        answered()


def test_successes_of_every_router(everything: Everything) -> None:
    """Each documented success of each operation is the response to some request, and no other one is."""
    everything_succeeds(everything)
    assert statuses(everything.answered, 2, 3) == statuses(everything.documented, 2, 3)


def test_refusals_without_a_throttle(tmp_path: Path) -> None:
    """Each operation that needs nothing but the throttle is a 503 where that is unreachable."""
    with served(tmp_path, Throttle("1/hour", storage="redis://127.0.0.1:1", timeout=1)) as opened:
        labels = counted_alone(opened)
        assert labels
        for label in labels:
            opened.ask(label, 503, body_of(label))
