import pytest

from fastapi_guard import ConfigurationError
from fastapi_guard.jwt.algorithms import ASYMMETRIC, SYMMETRIC, as_algorithms, model_of
from support.tokens import ALGORITHMS


def test_the_closed_list() -> None:
    """These algorithms can be configured and no others, `none` least of all (A.1)."""
    assert {"HS256", "HS384", "HS512"} == SYMMETRIC
    assert sorted(SYMMETRIC.union(ASYMMETRIC)) == sorted(ALGORITHMS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_by_its_exact_name(name: str) -> None:
    """Each passes by its own name, and by no other spelling of it (A.1)."""
    assert as_algorithms([name]) == (name,)
    for other in (name.lower() if name != name.lower() else name.upper(), f" {name}", f"{name}\n", name.encode()):
        with pytest.raises(ConfigurationError, match=r"algorithms needs names among HS256"):
            as_algorithms([other])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "not none$"),
        (["none"], "not text of 4 characters$"),
        (["None"], "not text of 4 characters$"),
        (["ES256", "none"], "not text of 4 characters$"),
        ([""], "not text of 0 characters$"),
        ([None], "not None$"),
        ([["ES256"]], "not list$"),
        (5, r'algorithms is a list of names, such as \["ES256"\], not 5$'),
        (["ES256K"], "not "),
        (["Ed448"], "not "),
        (["RSA-OAEP"], "not "),
        (["dir"], "not "),
        ("ES256", "algorithms is a list of names, such as .*, not text of 5 characters$"),
        (["HS256", "RS256"], "use one configuration for each$"),
        (["ES256", "HS512"], "use one configuration for each$"),
    ],
)
def test_refused_algorithms(names: list[str], message: str) -> None:
    """An empty list, an unknown name and symmetric beside asymmetric are refused, with the remedy (A.1, A.2)."""
    with pytest.raises(ConfigurationError, match=message):
        as_algorithms(names)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_has_its_model(name: str) -> None:
    """Each algorithm is implemented by joserfc's of the same name."""
    assert model_of(name).name == name


def test_nothing_else_has_a_model() -> None:
    """`none` and other algorithms of joserfc cannot be reached (A.1)."""
    for name in ("none", "ES256K", "Ed448", "RSA-OAEP"):
        with pytest.raises(KeyError):
            model_of(name)
