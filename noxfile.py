"""Check a change: `nox` in a few minutes, `nox -s full` the rest, `nox -s lint` a part; `nox --list` names the parts.

Only Python 3.11 is required. A version that is not found is skipped, as the summary at the end shows.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "docs", "tests-3.11"]

ROOT = Path(__file__).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
PYTHONS = [
    name.split()[-1] for name in PROJECT["classifiers"] if name.startswith("Programming Language :: Python :: 3.")
]
OLDEST, *BETWEEN, NEWEST = PYTHONS
EXTRAS = [extra for extra in PROJECT["optional-dependencies"] if extra != "all"]
# What `nox -s full` runs; the sessions above run without it, and those that measure or search run by name alone.
FULL = [
    f"tests-{NEWEST}",
    "lowest",
    "lanes",
]
# Sessions that leave a core idle for half of their time, the longest first: the lanes run at the same time.
LANES = [
    ["browser", "extras"],
    ["conformance", "interop", "migration"],
]
# The page whose modules `interop` serves, and the pages that no other session runs, since they need other libraries.
IGNORED = "--ignore-glob="
SERVED = "docs/how-to/mcp.md"
ELSEWHERE = [option.removeprefix(IGNORED) for option in PYPROJECT["tool"]["pytest"]["addopts"] if IGNORED in option]
ELSEWHERE.remove(SERVED)
DIST = ROOT / "dist"
# Set where the wheel was built by the run of nox that started this one.
BUILT = "FASTAPI_GUARD_WHEEL_BUILT"
# The commit of 0.1.0, which `load` measures beside this version.
FORMER = "7ef385c"
# Two processes of tests more than there are cores, since many tests wait for a server. Each collects all tests, so more
# than eight do not help.
WORKERS = min(max(os.cpu_count() or 2, 2) + 2, 8)
# Another Python, or other versions of libraries: without the tests of the repository itself.
AGAIN = ("-m", "not once")


def select_pyenv_versions() -> None:
    """Let each shim of pyenv on PATH answer: it refuses a version that is installed and not selected."""
    found = []
    for version in PYTHONS:
        shim = Path(shutil.which(f"python{version}") or "")
        if shim.parent.name == "shims":
            found += [path.name for path in (shim.parent.parent / "versions").glob(f"{version}.*")]
    if found:
        os.environ["PYENV_VERSION"] = ":".join(found)


def is_installed(version: str) -> bool:
    """Return whether this version of Python runs: a shim of pyenv may be there without it."""
    command = shutil.which(f"python{version}")
    return command is not None and subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode == 0  # noqa: S603


select_pyenv_versions()
# Each Python, and both ends of the versions of libraries, without each pair of them: the oldest and the newest Python
# have the newest versions of everything, and the one between them has the oldest.
LOWEST_ON = next(filter(is_installed, BETWEEN), OLDEST)
os.environ["UV_PYTHON_DOWNLOADS"] = "never"
# Tests start programs, each of which would otherwise compile every module again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def wheel(extra: str | None = None) -> str:
    """Return the requirement that the built wheel satisfies, with this extra."""
    path = next(DIST.glob("*.whl"))
    return f"{PROJECT['name']}{f'[{extra}]' if extra else ''} @ {path.as_uri()}"


def run_pytest(session: nox.Session, *arguments: str, **environment: str) -> None:
    """Run the tests against the wheel: the package of the working tree is kept off the path."""
    session.run("pytest", *arguments, env={"PYTHONSAFEPATH": "1", **environment})


def run_apart(session: nox.Session, folder: str, *options: str) -> None:
    """Run tests that have a session of their own, without the fixtures and the servers of the others."""
    run_in_parallel(session, f"--confcutdir={folder}", *options, *(session.posargs or [folder]))


def run_in_parallel(session: nox.Session, *arguments: str, **environment: str) -> None:
    """Run tests in one process for each core; conftest.py defines which tests stay together."""
    # A process that a test ended, or a hang, is not replaced: nothing is run again.
    run_pytest(session, f"--numprocesses={WORKERS}", "--max-worker-restart=0", *arguments, **environment)


def run_side_by_side(session: nox.Session, *commands: tuple[str, ...]) -> None:
    """Run commands, each of which uses one core, one on each core, and show what each of them printed."""
    environment = {**os.environ, "PATH": f"{session.bin}{os.pathsep}{os.environ['PATH']}"}

    def run(command: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
        program = str(shutil.which(command[0], path=environment["PATH"]))
        return subprocess.run(  # noqa: S603 - our own command
            [program, *command[1:]],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )

    failed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for command, done in zip(commands, pool.map(run, commands), strict=True):
            session.log(f"{' '.join(command)}:\n{done.stdout}")
            if done.returncode != 0:
                failed.append(" ".join(command))
    if failed:
        session.error(f"failed: {', '.join(failed)}")


# Lanes begin at the same time, so neither makes it again.
@nox.session(python=OLDEST, reuse_venv=True)
def build(session: nox.Session) -> None:
    """The wheel, which everything below is installed from."""
    if BUILT in os.environ:
        return
    # A wheel of an earlier run may have another version.
    shutil.rmtree(DIST, ignore_errors=True)
    session.install("hatchling")
    session.run("hatchling", "build", "--target", "wheel", "--directory", str(DIST))


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Rules, format, and who may import whom."""
    session.install("--group", "lint")
    run_side_by_side(
        session, ("ruff", "check"), ("ruff", "format", "--check"), ("lint-imports",), ("python", "tests/words/check.py")
    )


@nox.session(python=OLDEST, requires=["build"])
def typing(session: nox.Session) -> None:
    """Types, by two checkers; every public name has one."""
    session.install(wheel("all"), "--group", "typing")
    # By default it would look into the .venv that the README's command makes.
    interpreter = ("--pythonpath", str(Path(session.bin) / "python"))
    run_side_by_side(
        session,
        ("mypy",),
        ("basedpyright", *interpreter),
        ("basedpyright", *interpreter, "--verifytypes", "fastapi_guard", "--ignoreexternal"),
    )


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """The site, in site/: no page lost, no link broken, no request to another host; `-- serve` shows it."""
    session.install("--group", "docs")
    # The theme's announcement of another product.
    session.run("mkdocs", *(session.posargs or ["build"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(python=PYTHONS, requires=["build"])
def tests(session: nox.Session) -> None:
    """The tests and the documents' examples, on the newest versions of everything; on one Python every branch runs."""
    session.install(wheel("all"), "--group", "tests")
    if session.posargs:
        run_pytest(session, *session.posargs)
        return
    # Fewer inputs of each property, the same each time: `lowest` runs them all.
    options = ["--hypothesis-profile=quick"]
    if session.python == OLDEST:
        run_in_parallel(session, *options, "-p", "support.branches", PYTHONPATH="tests")
    else:
        run_in_parallel(session, *options, *AGAIN)


@nox.session(python=OLDEST, requires=["build"])
def full(session: nox.Session) -> None:
    """All other checks: the other Pythons, the oldest versions, each extra, other libraries and programs."""
    for name in FULL:
        session.notify(name)


@nox.session(python=LOWEST_ON, requires=["build"])
def lowest(session: nox.Session) -> None:
    """The tests on the oldest versions that pyproject.toml allows, on a Python that no other session of `full` has."""
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
        run_in_parallel(session, *AGAIN)


@nox.session(python=OLDEST, requires=["build"])
def lanes(session: nox.Session) -> None:
    """The sessions that leave a core idle, two at a time; what they print follows at the end."""
    os.environ[BUILT] = "yes"
    run_side_by_side(session, *((sys.executable, "-m", "nox", "--sessions", *lane) for lane in LANES))


@nox.session(python=OLDEST, requires=["build"])
def extras(session: nox.Session) -> None:
    """Each extra alone, or those that are named: what it is for imports, all else names the extra that it needs."""
    commands = []
    for extra in session.posargs or ("none", *EXTRAS):
        python = environment_of(session, extra, wheel(None if extra == "none" else extra), "--group", "pytest")
        installed = ("env", "PYTHONSAFEPATH=1", f"INSTALLED_EXTRAS={extra}")
        commands.append((*installed, python, "-m", "pytest", "--noconftest", "tests/test_imports.py"))
    run_side_by_side(session, *commands)


@nox.session(python=OLDEST, requires=["build"])
def fuzz(session: nox.Session) -> None:
    """Ten minutes of inputs that are led by what they reach, or as many seconds as are named; runs by name alone."""
    session.install(wheel("all"), "--group", "fuzz")
    targets = sorted(path.name for path in (ROOT / "tests" / "fuzz" / "corpus").iterdir())
    seconds = int(session.posargs[0]) if session.posargs else 600
    for target in targets:
        environment = {"PYTHONSAFEPATH": "1", "PYTHONPATH": "tests"}
        session.run("python", "-m", "fuzz.run", target, str(seconds // len(targets)), env=environment)


@nox.session(python=OLDEST, requires=["build"])
def interleavings(session: nox.Session) -> None:
    """A thousand sequences of logins, or as many as are named, on each store against a model; runs by name alone."""
    session.install(wheel("all"), "--group", "tests")
    number = session.posargs[0] if session.posargs else "1000"
    tests = "tests/login/test_interleavings.py"
    # A thousand of them take longer than the limit of a hang.
    run_in_parallel(session, "--override-ini=faulthandler_timeout=7200", tests, INTERLEAVINGS=number)


@nox.session(python=OLDEST, requires=["build"])
def migration(session: nox.Session) -> None:
    """The pages for those who come from another library, run beside that library."""
    session.install(wheel("all"), "--group", "migration")
    # One of them needs versions of everything that nothing else here runs with, another is for Django.
    apart = {
        "FASTAPI_JWT_AUTH_PYTHON": environment_of(session, "fastapi-jwt-auth", "--group", "fastapi-jwt-auth"),
        "DJANGO_ALLAUTH_PYTHON": environment_of(session, "django-allauth", "--group", "django-allauth"),
    }
    pages = [str(page.relative_to(ROOT)) for pattern in ELSEWHERE for page in sorted(ROOT.glob(pattern))]
    kept = [option for option in PYPROJECT["tool"]["pytest"]["addopts"] if IGNORED not in option]
    options = ("--override-ini", f"addopts={' '.join(kept)}")
    run_pytest(session, *options, *(session.posargs or pages), **apart)


def environment_of(session: nox.Session, name: str, *installed: str) -> str:
    """Make an environment with what is named, and nothing else; return its Python."""
    folder = Path(session.create_tmp()).absolute() / name
    session.run_install("uv", "venv", "--quiet", "--clear", "--python", str(Path(session.bin) / "python"), str(folder))
    python = str(folder / "bin" / "python")
    session.run_install("uv", "pip", "install", "--quiet", "--python", python, *installed)
    return python


@nox.session(python=OLDEST, requires=["build"])
def conformance(session: nox.Session) -> None:
    """The served demo, and every router, respond as the OpenAPI document has it."""
    session.install(wheel("all"), "--group", "conformance")
    run_apart(session, "tests/conformance")


@nox.session(python=OLDEST, requires=["build"])
def browser(session: nox.Session) -> None:
    """The demo's /docs and the pages with sessions in Chromium; what it showed is in .screenshots/."""
    if shutil.which("chromium") is None:
        missing = "chromium is not on PATH: apt-get install chromium"
        session.error(missing) if os.environ.get("CI") else session.skip(missing)
    session.install(wheel("all"), "--group", "browser")
    # Tests with a mark stay together, for the server that they share.
    run_apart(session, "tests/browser", "--dist=loadgroup")


@nox.session(python=OLDEST, requires=["build"])
def interop(session: nox.Session) -> None:
    """Programs that others wrote: an OpenID provider, MCP clients and servers, OAuth clients, Gradio, sqladmin."""
    if shutil.which("npm") is None:
        missing = "npm is not on PATH; on Debian: apt-get install nodejs npm"
        session.error(missing) if os.environ.get("CI") else session.skip(missing)
    session.install(wheel("all"), "--group", "interop")
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefix", "tests/interop")
    session.run_install("npm", "ci", *options, external=True)
    run_apart(session, "tests/interop")


@nox.session(python=OLDEST, requires=["build"])
def bench(session: nox.Session) -> None:
    """Measure the cost of a guard, beside other libraries; runs by name alone."""
    # The tests' group brings the servers that are measured.
    session.install(wheel("all"), "--group", "bench", "--group", "tests")
    for table in ("core", "api_keys", "remote_keys", "login", "providers", "composition", "audit"):
        session.run("python", "-m", f"tests.benchmarks.{table}", *session.posargs)
    session.run("python", "-m", "tests.benchmarks.page")


@nox.session(python=OLDEST, venv_backend="venv")
def release(session: nox.Session) -> None:
    """The files to publish, in dist/: wheel, sdist and SBOM, the same bytes twice; each extra installs with pip."""
    session.install("--quiet", "hatchling", "cyclonedx-bom~=7.5")
    committed = session.run("git", "log", "-1", "--format=%ct", external=True, silent=True) or ""
    dated = {"SOURCE_DATE_EPOCH": committed.strip()}
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("hatchling", "build", "--directory", str(DIST), env=dated)
    built = sorted(DIST.iterdir())
    # What the sdist holds makes the same files again.
    again = Path(session.create_tmp()).absolute() / "again"
    shutil.rmtree(again, ignore_errors=True)
    again.mkdir()
    session.run("tar", "-xzf", str(next(DIST.glob("*.tar.gz"))), "-C", str(again), external=True)
    with session.chdir(next(again.iterdir())):
        session.run("hatchling", "build", "--directory", str(again / "dist"), env=dated)
    for file in built:
        if file.read_bytes() != (again / "dist" / file.name).read_bytes():
            session.error(f"{file.name} has other bytes when it is built from the sdist")
    write_sbom(session, DIST / f"{built[0].name.split('-')[0]}-{PROJECT['version']}.cdx.json", dated)
    for extra in (None, *PROJECT["optional-dependencies"]):
        python = new_environment(session, extra or "none")
        session.run(python, "-m", "pip", "install", "--quiet", wheel(extra), external=True)
        session.run(python, "-m", "pip", "check", external=True)
        session.run(python, "-W", "error", "-c", "import fastapi_guard", external=True)


def new_environment(session: nox.Session, name: str) -> str:
    """Make an environment with the pip that Python brings, and nothing else; return its Python."""
    folder = Path(session.create_tmp()).absolute() / name
    session.run(str(Path(session.bin) / "python"), "-m", "venv", "--clear", str(folder))
    return str(folder / "bin" / "python")


def write_sbom(session: nox.Session, path: Path, dated: dict[str, str]) -> None:
    """Write a CycloneDX document of what the extra `all` installs."""
    # Without the wheel itself, which would bring the path of this folder into the document.
    python = new_environment(session, "sbom")
    needed = [*PROJECT["dependencies"], *(line for extra in EXTRAS for line in PROJECT["optional-dependencies"][extra])]
    session.run(python, "-m", "pip", "install", "--quiet", *needed, external=True)
    options = ("--pyproject", "pyproject.toml", "--mc-type", "library", "--output-reproducible", "-o", str(path))
    session.run("cyclonedx-py", "environment", *options, python, env=dated)


@nox.session(python=OLDEST)
def former(session: nox.Session) -> None:
    """Compare the cost of a guard with that at an earlier commit: `-- COMMIT`; runs by name alone."""
    # Both wheels are built and imported by the program; what is installed here is what they need.
    session.install(".[all]", "--group", "bench", "--group", "tests")
    session.run("python", "-m", "tests.benchmarks.former", *session.posargs)


@nox.session(python=OLDEST, requires=["build"])
def load(session: nox.Session) -> None:
    """Requests a second of what is served, beside 0.1.0, and a soak of ten minutes; runs by name alone."""
    if shutil.which("wrk") is None:
        session.error("wrk is not on PATH; on Debian: apt-get update && apt-get install wrk")
    session.install(wheel("all"), "--group", "load")
    former = install_former(session)
    # The wheel is served: of the working tree only the folder of the tests is on the path.
    environment = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT / "tests")}
    session.run("python", "-m", "load", "--former", former, *session.posargs, env=environment)
    session.run("python", "-m", "tests.benchmarks.page")


def install_former(session: nox.Session) -> str:
    """Install 0.1.0 into an environment of its own, beside the same versions of everything else; return its Python."""
    folder = Path(session.create_tmp()).absolute() / "former"
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    source.mkdir(parents=True)
    archive = str(folder / "source.tar")
    session.run("git", "archive", "--output", archive, FORMER, external=True)
    session.run("tar", "-xf", archive, "-C", str(source), external=True)
    installed = session.run("uv", "pip", "freeze", "--quiet", silent=True) or ""
    constraints = folder / "constraints.txt"
    lines = [line for line in installed.splitlines() if not line.startswith((PROJECT["name"], "-e"))]
    constraints.write_text("\n".join(lines), encoding="utf-8")
    environment = folder / "environment"
    session.run_install("uv", "venv", "--quiet", "--python", str(Path(session.bin) / "python"), str(environment))
    python = str(environment / "bin" / "python")
    libraries = (f"{source}[all]", "uvloop", "httptools", "asyncpg")
    session.run_install(
        "uv", "pip", "install", "--quiet", "--python", python, *libraries, "--constraints", str(constraints)
    )
    return python


@nox.session(python=OLDEST, requires=["build"])
def mutants(session: nox.Session) -> None:
    """The tests find 95 of 100 changes to each module that decides, or is named (`-- auth`); runs by name alone."""
    session.install(wheel("all"), "--group", "tests", "--group", "mutants")
    # A changed copy of the package in .mutants/ is imported in place of the wheel.
    environment = {"PYTHONSAFEPATH": "1", "PYTHONPATH": "tests"}
    session.run("python", "-m", "mutants", *session.posargs, env=environment)
