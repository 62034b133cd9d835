"""The signature of a callable, evaluated when it is read."""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal, NewType, TypeVar

import pytest
from typing_extensions import TypeAliasType

from fastapi_guard.app.annotations import parameters_of, return_of
from fastapi_guard.app.hidden import hidden_in

T = TypeVar("T")
MARK = object()


def annotated(annotation: Any) -> Callable[..., None]:
    """Return a function with a parameter of this annotation."""

    def function(parameter: Any) -> None:
        """Do nothing."""

    function.__annotations__["parameter"] = annotation
    return function


UNDEFINED = {
    "gone": ("gone",),
    "gone.Admin": ("gone",),
    "gone[int]": ("gone",),
    "gone('x') | None": ("gone",),
    "None | gone": ("gone",),
    "list[gone]": ("gone",),
    "Annotated[gone, away.requires('x')]": ("gone", "away"),
    "1 +": ("1 +",),
    "gone.__class__.__name__ + gone.__missing__": ("gone", "gone.__class__.__name__ + gone.__missing__"),
    "MARK.missing": ("MARK.missing",),
    "int": (),
    "MARK": (),
}


@pytest.mark.parametrize("text", UNDEFINED)
def test_names_that_are_not_defined(text: str) -> None:
    """They are listed, and the rest of the annotation is evaluated."""
    (written,) = parameters_of(annotated(text))
    assert written.undefined == UNDEFINED[text]


def test_what_stands_beside_a_name_that_is_not_defined() -> None:
    """It is evaluated, in a union too."""
    (written,) = parameters_of(annotated("Annotated[gone, MARK]"))
    assert written.metadata == (MARK,)
    (written,) = parameters_of(annotated("Annotated[gone, MARK] | None"))
    assert MARK in written.below


BELOW = {
    "a union": Annotated[int, MARK] | None,
    "a callable": Callable[[Annotated[int, MARK]], None],
    "a new type": NewType("Claims", Annotated[int, MARK]),  # type: ignore[valid-newtype]
    "an alias": TypeAliasType("Alias", list[Annotated[int, MARK]]),
    "an alias of a type": TypeAliasType("Generic", list[Annotated[T, MARK]], type_params=(T,))[int],  # type: ignore[misc]
    "text": list["Annotated[int, MARK]"],
}


@pytest.mark.parametrize("annotation", BELOW.values(), ids=BELOW)
def test_what_a_type_is_made_of(annotation: Any) -> None:
    """It is found at any depth; a literal is not evaluated."""
    (written,) = parameters_of(annotated(annotation))
    assert MARK in written.below
    (literal,) = parameters_of(annotated(Literal["MARK", "gone"]))
    assert (literal.below, literal.undefined) == ((), ())


def test_the_names_around_a_function() -> None:
    """Those that it closes over are known, one that is assigned later is not."""
    inner = MARK

    def function(parameter: "Annotated[int, inner]", other: "Annotated[int, later]") -> Any:
        return inner, later  # pragma: no cover - it is never called

    known, unknown = parameters_of(function)
    assert (known.metadata, known.undefined) == ((MARK,), ())
    assert unknown.undefined == ("later",)
    later = MARK
    assert parameters_of(function)[1].metadata == (later,)


def test_callables_without_a_signature() -> None:
    """They have no parameters, and return nothing that is written."""
    for call in (dict, int):
        assert parameters_of(call) == ()
        assert return_of(call) is None
    assert list(hidden_in(len)) == []


def test_a_signature_of_ones_own() -> None:
    """It is what FastAPI sees."""
    function = annotated(int)
    parameter = Parameter("other", Parameter.KEYWORD_ONLY, annotation=Annotated[int, MARK])
    function.__signature__ = Signature([parameter])  # type: ignore[attr-defined]
    assert [(written.name, written.metadata) for written in parameters_of(function)] == [("other", (MARK,))]
