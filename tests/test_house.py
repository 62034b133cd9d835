"""The repository keeps what its documents say."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
IGNORED = [
    option.removeprefix("--ignore-glob=")
    for option in PYPROJECT["tool"]["pytest"]["addopts"]
    if option.startswith("--ignore-glob=")
]
NOXFILE = (ROOT / "noxfile.py").read_text(encoding="utf-8")
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def set_up_commands() -> list[str]:
    """Return the README's lines that start from a machine with only Python and pip."""
    return re.findall(r"^.*-m venv .*$", README, flags=re.MULTILINE)


def imported_from_the_package(source: Path) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each `from fastapi_guard… import …` of a file."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fastapi_guard":
            yield from ((node.module, alias.name) for alias in node.names)


def is_there(module: str, name: str) -> bool:
    """Return whether `from module import name` would work."""
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def test_the_readme_lists_the_extras() -> None:
    """The README's table of extras is that of the project."""
    assert re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE) == list(PROJECT["optional-dependencies"])


def test_the_readme_of_the_examples_lists_them() -> None:
    """The table of the examples names each file and folder."""
    examples = ROOT / "examples"
    listed = re.findall(r"^\| \[([\w.]+)\]", (examples / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    there = {path.name for path in examples.iterdir() if path.name not in ("README.md", "__pycache__")}
    assert sorted(listed) == sorted(there)


def test_two_set_up_commands() -> None:
    """One line serves the demo and one passes the tests; no other line of a block of the README sets anything up."""
    serve, check = set_up_commands()
    new = "python3.11 -m venv .venv && .venv/bin/pip install "
    assert (
        serve == new + "'.[cli,http,passkeys,passwords,serve,sqlalchemy,throttle,totp]' && .venv/bin/fastapi-guard demo"
    )
    assert re.fullmatch(re.escape(new) + r"'nox\[uv\]>=[\d.]+' && \.venv/bin/nox", check)
    blocks = re.findall(r"^```bash\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert sum(block.count("pip install") for block in blocks) == len(set_up_commands())


def test_the_readme_has_an_install_line() -> None:
    """The section about installing begins with a line that installs the distribution, with extras that it has."""
    distribution, extras = re.findall(
        r"^## Install\n\n.*`pip install '([\w-]+)\[([\w,]+)\]'`$", README, flags=re.MULTILINE
    )[0]
    assert distribution == PROJECT["name"]
    assert set(extras.split(",")) < set(PROJECT["optional-dependencies"])


def test_ci_runs_the_second_set_up_command() -> None:
    """CI reads its command from the README, from among the same lines."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    assert """tests=$(grep '^python3\\.11 -m venv ' README.md | sed -n 2p)""" in script
    assert script.endswith('bash -euo pipefail -c "$tests"\n.venv/bin/nox -s full\n')
    assert re.findall(r"^python3\.11 -m venv .*$", README, flags=re.MULTILINE) == set_up_commands()


def test_options_of_pytest_in_the_sessions(pytestconfig: pytest.Config) -> None:
    """Each option that a session passes to pytest is one that it has: with another one no test of the session runs."""
    calls = [node for node in ast.walk(ast.parse(NOXFILE)) if isinstance(node, ast.Call)]
    passing = ("run_pytest", "run_in_parallel", "run_apart", "commands.append")
    runs = [call for call in calls if ast.unparse(call.func) in passing]
    constants = [node.value for call in runs for node in ast.walk(call) if isinstance(node, ast.Constant)]
    options = {text.partition("=")[0] for text in constants if isinstance(text, str) and text.startswith("--")}
    assert {"--numprocesses", "--override-ini", "--noconftest", "--dist"} <= options
    for option in options:
        pytestconfig.getoption(option)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_a_document_says_what_it_is(document: Path) -> None:
    """A fence is `python`, which runs in the tests, or plainly none: no spelling escapes the tests."""
    fences = re.findall(r"^ *(?:```|~~~)(.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    languages = {"python", "bash", "console", "text", "json", "toml", "http", "yaml", "javascript", "diff"}
    assert set(fences[::2]) <= languages
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    """A path of a test, a module of the package or an example, named as code, exists."""
    named = re.findall(r"`((?:tests|fastapi_guard|examples|docs)/[\w./-]*\.\w+)`", document.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_other_document_with_a_block_runs() -> None:
    """The tests collect the README and each document that has a python block, wherever in docs it stands."""
    # Without the plugins that only tests need, it starts in half of the time.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "anyio",
        "-p",
        "xdist",
        "--collect-only",
        "-q",
        "README.md",
        "docs",
    ]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    collected = subprocess.run(  # noqa: S603 - our own command
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    ignored = {page for pattern in IGNORED for page in ROOT.glob(pattern)}
    expected = {
        page.relative_to(ROOT).as_posix()
        for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
        if page not in ignored and re.search("```python|invisible-code-block: python", page.read_text(encoding="utf-8"))
    }
    assert set(re.findall(r"^(.+?\.md)::", collected, flags=re.MULTILINE)) == expected


def test_only_pages_about_other_libraries_are_left_to_another_session() -> None:
    """The tests leave out of the documents what `nox -s migration` and `nox -s interop` run, and CI runs both."""
    pages = {page.name for pattern in IGNORED for page in ROOT.glob(pattern)}
    libraries = ("authx", "fastapi-jwt-auth", "fastapi-users", "fastapi-views", "keyshield", "pyjwt")
    assert pages == {"comparison.md", "django-allauth.md", "mcp.md", *(f"migrate-from-{name}.md" for name in libraries)}
    found = re.findall(r"^(?:FULL|LANES) = \[(.*?)^\]", NOXFILE, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 2
    assert {"lanes", "migration", "interop"} <= set(re.findall(r'"(\w+)"', "".join(found)))


def test_the_wheel(tmp_path: Path) -> None:
    """The wheel holds the package with its marker of types, its license, and nothing beside."""
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        files = set(wheel.namelist())
    info = f"fastapi_guard_auth-{PROJECT['version']}.dist-info/"
    examples = {"demo/__init__.py", "accounts/__init__.py", "accounts/static/passkeys.js"}
    expected = {f"fastapi_guard/examples/{file}" for file in examples}
    assert {"fastapi_guard/py.typed", "fastapi_guard/__init__.py", *expected, f"{info}licenses/LICENSE"} <= files
    assert {file for file in files if not file.startswith(("fastapi_guard/", info))} == set()


def test_the_same_bytes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheel and sdist have the same bytes when they are built again, another day and elsewhere, from the sdist."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795937143")
    first, second = tmp_path / "first", tmp_path / "second"
    (sdist,) = SdistBuilder(str(ROOT)).build(directory=str(first), versions=["standard"])
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(first), versions=["standard"])
    with tarfile.open(sdist) as archive:
        # Python 3.11.2 of Debian 12 has no filters, and needs none for our own archive.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)  # noqa: S202 - our own archive
    unpacked = tmp_path / Path(sdist).name.removesuffix(".tar.gz")
    for path in unpacked.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    for builder, built in ((SdistBuilder, sdist), (WheelBuilder, wheel)):
        (again,) = builder(str(unpacked)).build(directory=str(second), versions=["standard"])
        assert Path(again).read_bytes() == Path(built).read_bytes()


def test_the_version_is_in_the_changelog() -> None:
    """The changelog has an entry for the version of the project."""
    assert f"\n## [{PROJECT['version']}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_each_session_is_in_the_table() -> None:
    """The table of CONTRIBUTING names every session of nox, and no other."""
    sessions = re.findall(r"^@nox\.session\(.*\n(?:@nox.*\n)*def (\w+)", NOXFILE, flags=re.MULTILINE)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| session \|.*\n\|.*\n((?:\|.*\n)+)", contributing, flags=re.MULTILINE)
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == sorted(sessions)


def test_the_files_that_mutants_are_made_of() -> None:
    """Each module to change, and each test to find it, is there, also after a move."""
    settings = PYPROJECT["tool"]["mutmut"]
    for path in (*settings["only_mutate"], *settings["pytest_add_cli_args_test_selection"]):
        assert list(ROOT.glob(path)), path


@pytest.mark.parametrize("folder", ["benchmarks", "load"])
def test_what_only_measures_finds_the_package(folder: str) -> None:
    """A session that does not run by default imports what is there, also after a move."""
    imported = {name for source in (ROOT / "tests" / folder).glob("*.py") for name in imported_from_the_package(source)}
    assert imported
    assert [name for name in sorted(imported) if not is_there(*name)] == []


def test_a_name_that_is_not_there() -> None:
    """The look-up of a name finds a module and a name in one, and rejects anything else."""
    assert is_there("fastapi_guard", "JWTAuth")
    assert is_there("wsgiref", "validate")  # a module that is not imported yet
    assert is_there("fastapi_guard.cli", "demo")
    assert not is_there("fastapi_guard", "demo")


def test_the_length_of_modules() -> None:
    """No module of the package has more than 320 lines."""
    modules = sorted((ROOT / "fastapi_guard").rglob("*.py"))
    assert modules
    assert [path.name for path in modules if len(path.read_text(encoding="utf-8").splitlines()) > 320] == []


def test_the_supported_versions() -> None:
    """SECURITY.md has the version, the Pythons and the FastAPI of the project."""
    policy = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    row = re.search(r"^\| ([\d.]+) \| all \| (.+) \| ([\d.]+) and later \|$", policy, flags=re.MULTILINE)
    assert row is not None
    version, pythons, fastapi = row.groups()
    assert PROJECT["version"].startswith(f"{version}.")
    named = [
        name.split()[-1] for name in PROJECT["classifiers"] if name.startswith("Programming Language :: Python :: 3.")
    ]
    assert pythons.split(", ") == named
    assert f"fastapi>={fastapi}" in PROJECT["dependencies"]
