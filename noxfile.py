"""What is checked before a change is good: `nox` runs all of it, `nox -s lint` a part, `nox --list` names the parts.

Only Python 3.11 has to be there. A version that is not found is skipped, and the summary at the end says so.
"""

import os
import shutil
import subprocess
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    "lint",
    "typing",
    "docs",
    "tests",
    "coverage",
    "lowest",
    "extras",
    "migration",
    "conformance",
    "browser",
]

ROOT = Path(__file__).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
PYTHONS = [
    name.split()[-1] for name in PROJECT["classifiers"] if name.startswith("Programming Language :: Python :: 3.")
]
OLDEST = PYTHONS[0]
EXTRAS = [extra for extra in PROJECT["optional-dependencies"] if extra != "all"]
# About half of the tests by time, run beside the other half.
APART = ("tests/jwt", "tests/api_key", "tests/cli", "tests/stores")
# The pages that no other session runs, because they need the libraries that they speak of.
IGNORED = "--ignore-glob="
ELSEWHERE = [option.removeprefix(IGNORED) for option in PYPROJECT["tool"]["pytest"]["addopts"] if IGNORED in option]
# More than three times what a half takes on two cores.
HALF_SECONDS = 900
# The least part of the mutants that the tests have to find, in each module.
KILLED = 0.95
DIST = ROOT / "dist"
MEASURED = ROOT / ".coverage-data"


def select_pyenv_versions() -> None:
    """Let each shim of pyenv on PATH answer: it refuses a version that is installed and not selected."""
    found = []
    for version in PYTHONS:
        shim = Path(shutil.which(f"python{version}") or "")
        if shim.parent.name == "shims":
            found += [path.name for path in (shim.parent.parent / "versions").glob(f"{version}.*")]
    if found:
        os.environ["PYENV_VERSION"] = ":".join(found)


select_pyenv_versions()
os.environ["UV_PYTHON_DOWNLOADS"] = "never"


def wheel(extra: str | None = None) -> str:
    """Return the requirement that the built wheel satisfies, with this extra."""
    path = next(DIST.glob("*.whl"))
    return f"{PROJECT['name']}{f'[{extra}]' if extra else ''} @ {path.as_uri()}"


def run_pytest(session: nox.Session, *arguments: str, **environment: str) -> None:
    """Run the tests against the wheel: the package of the working tree is kept off the path."""
    session.run("pytest", *arguments, env={"PYTHONSAFEPATH": "1", **environment})


def run_apart(session: nox.Session, folder: str) -> None:
    """Run tests that have a session of their own, without the fixtures and the servers of the others."""
    run_pytest(session, f"--confcutdir={folder}", folder, *session.posargs)


def run_all_tests(session: nox.Session, *arguments: str, data: Path | None = None) -> None:
    """Run all tests in two processes side by side, and show what each of them printed."""
    apart = [f"--ignore={folder}" for folder in APART]
    halves = {"apart": APART, "rest": ("README.md", "docs", "tests", *apart)}

    def start(name: str) -> subprocess.Popen[bytes]:
        path = f"{session.bin}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PYTHONSAFEPATH": "1", "PATH": path}
        if data is not None:
            environment["COVERAGE_FILE"] = f"{data}-{name}"
        command = [str(Path(session.bin) / "pytest"), *arguments, *halves[name]]
        with outputs[name].open("wb") as file:
            return subprocess.Popen(  # noqa: S603 - our own command
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    outputs = {name: Path(session.create_tmp()) / f"{name}.txt" for name in halves}
    running = {name: start(name) for name in halves}
    failed = False
    for name, process in running.items():
        try:
            code = process.wait(HALF_SECONDS)
        except subprocess.TimeoutExpired:
            # A test that waits for ever must not keep whoever waits for all of them.
            process.kill()
            process.wait()
            session.warn(f"the tests of {name} hung, and run once more:\n{outputs[name].read_text(encoding='utf-8')}")
            code = start(name).wait()
        failed = failed or code != 0
        session.log(outputs[name].read_text(encoding="utf-8"))
    if failed:
        session.error("tests failed")


@nox.session(python=OLDEST)
def build(session: nox.Session) -> None:
    """The wheel, which everything below is installed from."""
    # What an earlier run built or measured says nothing about this one.
    for leftover in (DIST, MEASURED):
        shutil.rmtree(leftover, ignore_errors=True)
    session.install("hatchling")
    session.run("hatchling", "build", "--target", "wheel", "--directory", str(DIST))


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Rules, format, and who may import whom."""
    session.install("--group", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")
    session.run("python", "tests/words/check.py")


@nox.session(python=OLDEST, requires=["build"])
def typing(session: nox.Session) -> None:
    """Types, by two checkers; every public name has one."""
    session.install(wheel("all"), "--group", "typing")
    session.run("mypy")
    # Left to itself it would look into the .venv that the README's command makes.
    interpreter = ("--pythonpath", str(Path(session.bin) / "python"))
    session.run("basedpyright", *interpreter)
    session.run("basedpyright", *interpreter, "--verifytypes", "fastapi_guard", "--ignoreexternal")


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """The site, in site/: no page lost, no link broken, nothing that asks another host; `-- serve` shows it."""
    session.install("--group", "docs")
    # The theme's announcement of another product.
    session.run("mkdocs", *(session.posargs or ["build"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(python=PYTHONS, requires=["build"])
def tests(session: nox.Session) -> None:
    """The tests and the documents' examples, on the newest versions of everything."""
    session.install(wheel("all"), "--group", "tests")
    if session.posargs:
        run_pytest(session, *session.posargs)
    else:
        measure = ("--cov", "--cov-report=", "--cov-fail-under=0")
        run_all_tests(session, *measure, data=MEASURED / str(session.python))
        session.notify("coverage")


@nox.session(python=OLDEST)
def coverage(session: nox.Session) -> None:
    """Every branch of the package and of its tests has run, on one Python or another."""
    session.install("coverage")
    combined = {"COVERAGE_FILE": str(MEASURED / "combined")}
    session.run("coverage", "combine", "--keep", *map(str, MEASURED.glob("3.*")), env=combined)
    session.run("coverage", "report", env=combined)


@nox.session(python=OLDEST, requires=["build"])
def lowest(session: nox.Session) -> None:
    """The tests on the oldest versions that pyproject.toml allows."""
    versions = Path(session.create_tmp()) / "lowest.txt"
    compiled = (
        "--no-deps",
        "--resolution",
        "lowest-direct",
        "--extra",
        "all",
        "--quiet",
        "--output-file",
        str(versions),
    )
    session.run("uv", "pip", "compile", "pyproject.toml", *compiled)
    # An old Starlette's TestClient is built on httpx.
    session.install(wheel("all"), "httpx", "--group", "tests", "--constraints", str(versions))
    if session.posargs:
        run_pytest(session, *session.posargs)
    else:
        run_all_tests(session)


@nox.session(python=OLDEST, requires=["build"])
@nox.parametrize("extra", [None, *EXTRAS], ids=["none", *EXTRAS])
def extras(session: nox.Session, extra: str | None) -> None:
    """Each extra alone: what it is for imports, everything else names the extra that it needs."""
    session.install(wheel(extra), "pytest")
    run_pytest(session, "--noconftest", "tests/test_imports.py", INSTALLED_EXTRAS=extra or "")


@nox.session(python=OLDEST, requires=["build"])
def fuzz(session: nox.Session) -> None:
    """Ten minutes of inputs that are led by what they reach, or as many seconds as are named; not run by default."""
    session.install(wheel(), "--group", "fuzz")
    targets = sorted(path.name for path in (ROOT / "tests" / "fuzz" / "corpus").iterdir())
    seconds = int(session.posargs[0]) if session.posargs else 600
    for target in targets:
        environment = {"PYTHONSAFEPATH": "1", "PYTHONPATH": "tests"}
        session.run("python", "-m", "fuzz.run", target, str(seconds // len(targets)), env=environment)


@nox.session(python=OLDEST, requires=["build"])
def migration(session: nox.Session) -> None:
    """The pages for those who come from another library, run beside that library."""
    session.install(wheel("all"), "--group", "migration")
    # One of them needs versions of everything that nothing else here runs with.
    former = Path(session.create_tmp()).absolute() / "fastapi-jwt-auth"
    session.run_install("uv", "venv", "--quiet", "--clear", "--python", str(Path(session.bin) / "python"), str(former))
    python = str(former / "bin" / "python")
    session.run_install("uv", "pip", "install", "--quiet", "--python", python, "--group", "fastapi-jwt-auth")
    pages = [str(page.relative_to(ROOT)) for pattern in ELSEWHERE for page in sorted(ROOT.glob(pattern))]
    kept = [option for option in PYPROJECT["tool"]["pytest"]["addopts"] if IGNORED not in option]
    options = ("--override-ini", f"addopts={' '.join(kept)}")
    run_pytest(session, *options, *(session.posargs or pages), FASTAPI_JWT_AUTH_PYTHON=python)


@nox.session(python=OLDEST, requires=["build"])
def conformance(session: nox.Session) -> None:
    """The served demo answers what its OpenAPI document says: every documented status, and no other."""
    session.install(wheel("all"), "--group", "conformance")
    run_apart(session, "tests/conformance")


@nox.session(python=OLDEST, requires=["build"])
def browser(session: nox.Session) -> None:
    """The demo's /docs and the pages with sessions in Chromium; what it showed is in .screenshots/."""
    if shutil.which("chromium") is None:
        missing = "chromium is not on PATH: apt-get install chromium"
        session.error(missing) if os.environ.get("CI") else session.skip(missing)
    session.install(wheel("all"), "--group", "browser")
    run_apart(session, "tests/browser")


@nox.session(python=OLDEST, requires=["build"])
def bench(session: nox.Session) -> None:
    """What a guard costs, beside other libraries; not among the sessions that run by default."""
    # The tests' group brings the servers that are measured.
    session.install(wheel("all"), "--group", "bench", "--group", "tests")
    for table in ("core", "api_keys", "remote_keys", "login", "composition", "audit"):
        session.run("python", "-m", f"tests.benchmarks.{table}", *session.posargs)
    session.run("python", "-m", "tests.benchmarks.page")


@nox.session(python=OLDEST, requires=["build"])
def load(session: nox.Session) -> None:
    """Requests a second of what is served, and a soak of two minutes; not among the sessions that run by default."""
    if shutil.which("wrk") is None:
        session.error("wrk is not on PATH; on Debian: apt-get update && apt-get install wrk")
    session.install(wheel("all"), "--group", "load")
    # The wheel is served: of the working tree only the folder of the tests is on the path.
    session.run(
        "python", "-m", "load", *session.posargs, env={"PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT / "tests")}
    )
    session.run("python", "-m", "tests.benchmarks.page")


@nox.session(python=OLDEST, requires=["build"])
def mutants(session: nox.Session) -> None:
    """The tests find 95 of 100 changes to each module that decides; not among the sessions that run by default."""
    session.install(wheel("all"), "--group", "tests", "--group", "mutants")
    shutil.rmtree(ROOT / "mutants", ignore_errors=True)
    # It changes, and tests, a copy of the working tree in mutants/, which stands before the wheel on the path.
    # Where mutants are named it runs the tests by name first, and so sees whether their names stay what they are.
    session.run("mutmut", "run", *(session.posargs or ["fastapi_guard.*"]), env={"PYTHONSAFEPATH": "1"})
    listed = session.run("mutmut", "results", "--all", "true", silent=True) or ""
    statuses: dict[str, Counter[str]] = defaultdict(Counter)
    for line in listed.splitlines():
        mutant, _, status = line.strip().rpartition(": ")
        if status != "not checked":
            statuses[module_of(mutant)][status] += 1
    scores = {module: (found["killed"] + found["timeout"]) / found.total() for module, found in statuses.items()}
    for module, score in sorted(scores.items()):
        session.log(f"{module}: {score:.1%} of {statuses[module].total()}, {dict(statuses[module])}")
    if weak := [module for module, score in scores.items() if score < KILLED]:
        session.error(f"below {KILLED:.0%}: {', '.join(weak)}")


def module_of(mutant: str) -> str:
    """Return the module of a mutant; the parts of `auth` count as one, and so do those of `schemes`."""
    module = mutant.rpartition(".")[0]
    packages = ("fastapi_guard.auth", "fastapi_guard.schemes")
    return next((package for package in packages if module.startswith(f"{package}.")), module)
