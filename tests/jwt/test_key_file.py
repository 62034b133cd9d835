"""A file of keys: read again when it changes, never taken from where others can write, rotated without a gap."""

import asyncio
import errno
import fcntl
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc import jwk

from fastapi_guard import ConfigurationError, JWTAuth, JWTConfig, ServiceUnavailable, jwks_router
from fastapi_guard.jwt import atomic_file
from fastapi_guard.jwt.key_file import KeyFile, new_key
from support import rotating_process
from support.clock import Clock
from support.processes import OtherProcess

ALGORITHMS: list[Any] = ["ES256", "ES384", "ES512", "RS256", "PS256", "Ed25519"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file with keys."""
    KeyFile(tmp_path / "keys.json").generate()
    return tmp_path / "keys.json"


def entries(path: Path) -> list[dict[str, Any]]:
    """Return what is in a key file."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["keys"]
    return found


def verify(auth: JWTAuth, token: str) -> bool:
    """Return whether a token is accepted."""
    return asyncio.run(auth.validate_token(token))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_generate_and_rotate(tmp_path: Path, algorithm: Any) -> None:
    """A running Auth signs with the new current key after a rotation, and verifies with the old until it is dropped."""
    path = tmp_path / "keys.json"
    clock = Clock()
    KeyFile(path).generate(algorithm)
    auth = JWTAuth(JWTConfig(key=KeyFile(path, clock=clock)))
    assert [(entry["status"], entry["alg"], entry["use"]) for entry in entries(path)] == [
        ("current", algorithm, "sig"),
        ("next", algorithm, "sig"),
    ]
    announced = entries(path)[1]["kid"]
    first = auth.encode({"sub": "ada"})
    KeyFile(path).rotate()
    assert auth.encode({"sub": "ada"}).partition(".")[0] == first.partition(".")[0]
    clock.move(1)
    second = auth.encode({"sub": "ada"})
    assert auth.config.jwks["keys"][0]["kid"] == announced
    assert [entry["status"] for entry in entries(path)] == ["current", "next", "retired"]
    assert not {"d", "p", "q", "dp", "dq", "qi"} & set(entries(path)[2])
    assert verify(auth, first)
    assert verify(auth, second)
    KeyFile(path).rotate()
    clock.move(1)
    assert verify(auth, first)
    assert verify(auth, second)
    KeyFile(path).rotate(keep=timedelta())
    clock.move(1)
    assert not verify(auth, first)
    assert not verify(auth, second)
    assert [entry["status"] for entry in entries(path)] == ["current", "next"]


def test_the_mode_of_the_file(path: Path) -> None:
    """Only its owner may read and write the file, after a rotation too, and nothing is left beside it."""
    assert path.stat().st_mode & 0o777 == 0o600
    KeyFile(path).rotate()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o660, 0o602, 0o610])
def test_a_file_that_others_can_read_or_write(path: Path, mode: int) -> None:
    """A file that is open to others is refused with the remedy; a group may read, as secrets are mounted."""
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        KeyFile(path).jwks()
    path.chmod(0o440)
    assert KeyFile(path).jwks()["keys"]


def test_retired_keys_are_kept_for_a_while(path: Path) -> None:
    """A retired key stays in the file as long as it verifies, counted from its retirement."""
    with time_machine.travel(1_800_000_000, tick=False) as traveller:
        for expected in (3, 4, 4, 4):
            KeyFile(path).rotate(keep=timedelta(hours=1))
            assert len(entries(path)) == expected
            traveller.shift(1800)


def test_a_retired_key_ceases_to_verify_without_another_rotation(path: Path) -> None:
    """When `keep` is over the key is gone from verification and from the published set; the file need not change."""
    clock, wall = Clock(), Clock()
    auth = JWTAuth(JWTConfig(key=KeyFile(path, clock=clock, wall_clock=wall), cache_size=8), clock=wall)
    token = auth.encode({"sub": "ada"}, expires_in=timedelta(days=30))
    for _ in range(2):
        assert verify(auth, token)
    KeyFile(path, wall_clock=wall).rotate(keep=timedelta(hours=2))
    clock.move(1)
    assert verify(auth, token)
    wall.move(7199.5)
    assert verify(auth, token)
    assert len(KeyFile(path, wall_clock=wall).jwks()["keys"]) == 3
    wall.move(0.5)
    assert not verify(auth, token)
    assert len(auth.config.jwks["keys"]) == 2
    assert len(KeyFile(path, wall_clock=wall).jwks()["keys"]) == 2
    assert verify(auth, auth.encode({"sub": "ada"}))
    assert len(entries(path)) == 3
    KeyFile(path, wall_clock=wall).rotate()
    assert len(entries(path)) == 3


def test_a_shorter_time_counts_for_keys_that_are_retired_already(path: Path) -> None:
    """After a leak, one rotation that keeps nothing removes every key that signed before; more time revives none."""
    wall = Clock(1_800_000_000)
    file = KeyFile(path, wall_clock=wall)
    file.rotate(keep=timedelta(days=30))
    file.rotate(keep=timedelta(days=30))
    wall.move(timedelta(hours=1))
    file.rotate(keep=timedelta(hours=2))
    assert [entry["verifies_until"] - wall.now for entry in entries(path)[2:]] == [7200, 3600, 3600]
    file.rotate(keep=timedelta(days=30))
    assert [entry["verifies_until"] - wall.now for entry in entries(path)[2:]] == [30 * 86_400, 7200, 3600, 3600]
    file.rotate(keep=timedelta())
    assert [entry["status"] for entry in entries(path)] == ["current", "next"]


def test_a_retired_key_without_an_end(path: Path) -> None:
    """A file that was written by hand may name none: the key verifies until it is removed."""
    wall = Clock()
    KeyFile(path, wall_clock=wall).rotate()
    members = [{name: value for name, value in entry.items() if name != "verifies_until"} for entry in entries(path)]
    path.write_text(json.dumps({"keys": members}))
    wall.move(timedelta(days=3650))
    assert len(KeyFile(path, wall_clock=wall).jwks()["keys"]) == 3


def test_another_algorithm(path: Path) -> None:
    """A rotation can announce a key of another algorithm."""
    KeyFile(path).rotate(algorithm="Ed25519")
    assert [entry["alg"] for entry in entries(path)] == ["ES256", "Ed25519", "ES256"]
    KeyFile(path).rotate()
    assert [entry["alg"] for entry in entries(path)] == ["Ed25519", "Ed25519", "ES256", "ES256"]


def test_algorithms_of_the_configuration(path: Path) -> None:
    """Keys that do not fit the configuration's closed list neither sign nor verify."""
    token = JWTAuth(JWTConfig(key=KeyFile(path))).encode({"sub": "ada"})
    assert verify(JWTAuth(JWTConfig(key=KeyFile(path), algorithms=["ES256"])), token)
    other = JWTAuth(JWTConfig(key=KeyFile(path), algorithms=["ES384"]))
    assert not verify(other, token)
    with pytest.raises(ConfigurationError, match="no key to sign with"):
        other.encode({"sub": "ada"})
    with pytest.raises(ConfigurationError, match="symmetric"):
        JWTConfig(key=KeyFile(path), algorithms=["HS256"])


def test_serving(path: Path) -> None:
    """Requests and the published set follow the file; a file that breaks changes nothing and is logged."""
    clock = Clock()
    auth = JWTAuth(JWTConfig(key=KeyFile(path, clock=clock), cache_size=8))
    app = FastAPI()
    app.include_router(jwks_router(auth))
    app.get("/me", dependencies=[auth.authenticated()])(lambda: "in")
    client = TestClient(app)
    token = auth.encode({"sub": "ada"})

    def status() -> int:
        return client.get("/me", headers={"Authorization": f"Bearer {token}"}).status_code

    assert [status(), status()] == [200, 200]
    KeyFile(path).rotate()
    clock.move(1)
    assert len(client.get("/.well-known/jwks.json").json()["keys"]) == 3
    assert status() == 200
    KeyFile(path).rotate(keep=timedelta())
    clock.move(1)
    assert status() == 401


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"keys": 7}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "EC"}]}',
        b'{"keys": [{"kty": "EC", "status": "current"}]}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "status": "current"}]}',
        b'{"keys": [{"status": "current"}, {"status": "current"}]}',
        b'{"keys": [{"status": "current"}, {"status": "other"}]}',
        b'{"keys": [{"kty": "EC", "status": "current", "verifies_until": "2027"}]}',
        b'{"keys": [{"kty": "EC", "status": "current", "retired_at": true}]}',
        b'{"keys": ["current"]}',
        b"\xff",
        None,
    ],
)
def test_a_file_that_cannot_be_read(path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    """While the file cannot be read a running Auth goes on with what it had; one that never could is a 503."""
    clock = Clock()
    auth = JWTAuth(JWTConfig(key=KeyFile(path, clock=clock)))
    token = auth.encode({"sub": "ada"})
    good = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    clock.move(1)
    with caplog.at_level(logging.ERROR, "fastapi_guard"):
        assert verify(auth, token)
        assert auth.encode({"sub": "ada"})
    assert str(path) in caplog.records[0].message
    assert caplog.records[0].message.endswith("the keys stay as they are")
    with pytest.raises(ConfigurationError, match="the key file"):
        KeyFile(path).jwks()
    fresh_clock = Clock()
    fresh = JWTAuth(JWTConfig(key=KeyFile(path, clock=fresh_clock)))
    with pytest.raises(ServiceUnavailable) as error:
        asyncio.run(fresh.verify(token))
    assert (error.value.reason, error.value.headers) == ("keys_unreadable", {"Retry-After": "5"})
    with pytest.raises(ServiceUnavailable) as error:
        fresh.encode({"sub": "ada"})
    assert isinstance(error.value.__cause__, ConfigurationError)
    assert error.value.__notes__ == [str(error.value.__cause__)]
    path.write_bytes(good)
    path.chmod(0o600)
    fresh_clock.move(1)
    assert verify(fresh, token)


def test_it_is_looked_at_once_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many requests there are, the file is looked at once a second, and read where it has changed."""
    looks: list[Path] = []
    reads: list[Path] = []
    stat, read = Path.stat, Path.read_bytes
    clock = Clock()
    auth = JWTAuth(JWTConfig(key=KeyFile(path, clock=clock)))
    monkeypatch.setattr(Path, "stat", lambda self: looks.append(self) or stat(self))
    monkeypatch.setattr(Path, "read_bytes", lambda self: reads.append(self) or read(self))
    token = auth.encode({"sub": "ada"})
    for _ in range(10):
        assert verify(auth, token)
    clock.move(1)
    assert verify(auth, token)
    assert (len(looks), len(reads)) == (2, 1)


def test_one_file_of_that_name(path: Path) -> None:
    """A file that is there is not replaced by a new one."""
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="exists: rotate it"):
        KeyFile(path).generate()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_four_processes_rotate_at_once(path: Path) -> None:
    """They take turns: no rotation is lost, and whenever the file is read it has keys."""
    processes = [OtherProcess(rotating_process.main, path) for _ in range(4)]
    for process in processes:
        process.send("begin")
    reads = 0
    while any(process.is_running() for process in processes):
        assert len(KeyFile(path).jwks()["keys"]) >= 2
        reads += 1
    assert [process.wait() for process in processes] == [0] * 4
    assert reads
    assert [entry["status"] for entry in entries(path)] == ["current", "next", *["retired"] * 20]
    assert list(path.parent.iterdir()) == [path]


def test_threads_that_rotate_at_once(path: Path) -> None:
    """Threads of one process take turns too."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: KeyFile(path).rotate(), range(8)))
    assert len(entries(path)) == 10


def test_only_one_of_several_creates_the_file(tmp_path: Path) -> None:
    """Of several that would create it at once, one does, and its keys stay."""
    path = tmp_path / "keys.json"

    def create(_: int) -> str:
        try:
            KeyFile(path).generate()
        except ConfigurationError as error:
            return str(error)
        return "created"

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(create, range(4)))
    assert results.count("created") == 1
    assert sum("exists: rotate it" in result for result in results) == 3
    assert len(entries(path)) == 2


def test_a_rotation_that_was_killed(path: Path) -> None:
    """The half-written file of a process that was killed does not keep others from rotating."""
    Path(f"{path}.new").write_text('{"keys": [')
    KeyFile(path).rotate()
    assert len(entries(path)) == 3
    assert list(path.parent.iterdir()) == [path]


def test_a_lock_that_is_not_released(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation waits for a limited time for one that hangs, and then changes nothing."""
    before = path.read_bytes()
    monkeypatch.setattr(atomic_file, "_LOCK_SECONDS", 0.05)
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(ConfigurationError, match="has been locked by another process"):
        KeyFile(path).rotate()
    assert path.read_bytes() == before
    os.close(folder)
    KeyFile(path).rotate()


def test_a_file_system_that_does_not_work(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks, and where the new file cannot be put in place, the reason is named and the file stays."""
    before = path.read_bytes()

    def broken(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", broken)
        with pytest.raises(ConfigurationError, match="cannot be locked: No locks available"):
            KeyFile(path).rotate()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", broken)
        with pytest.raises(ConfigurationError, match="cannot be written: No locks available"):
            KeyFile(path).rotate()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_without_a_next_key(path: Path) -> None:
    """Without a next key there is nothing to rotate to."""
    path.write_text(json.dumps({"keys": entries(path)[:1]}))
    with pytest.raises(ConfigurationError, match="has no next key"):
        KeyFile(path).rotate()
    assert JWTAuth(JWTConfig(key=KeyFile(path))).encode({"sub": "ada"})


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A file that cannot be written is an error with its cause."""
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        KeyFile(tmp_path / "none" / "keys.json").generate()


@pytest.mark.parametrize("algorithm", ["HS256", "none", ""])
def test_an_algorithm_that_no_file_holds(algorithm: Any) -> None:
    """A key file holds asymmetric keys alone."""
    with pytest.raises(ConfigurationError, match="a key file holds keys for ES256"):
        new_key(algorithm)
    assert isinstance(new_key("ES256"), jwk.ECKey)


def test_a_path_below_a_file(tmp_path: Path) -> None:
    """The command that creates a file is the remedy for a missing one alone."""
    (tmp_path / "keys").touch()
    message = f"the key file {tmp_path}/keys/keys.json cannot be read: Not a directory"
    with pytest.raises(ConfigurationError) as error:
        KeyFile(tmp_path / "keys" / "keys.json").jwks()
    assert str(error.value) == message


@pytest.mark.parametrize("member", ["alg", "kid", "kty"])
def test_a_rotation_without_a_member(tmp_path: Path, member: str) -> None:
    """A file that was written by hand is refused with what its keys lack, and stays as it was."""
    path = tmp_path / "keys.json"
    KeyFile(path).generate()
    content = json.loads(path.read_text())
    for entry in content["keys"]:
        del entry[member]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="a key without a kty, kid or alg, and cannot be rotated"):
        KeyFile(path).rotate()
    assert json.loads(path.read_text()) == content


def test_how_long_retired_keys_are_kept(tmp_path: Path) -> None:
    """It is a duration, in seconds or a timedelta, and not negative."""
    path = tmp_path / "keys.json"
    KeyFile(path).generate()
    KeyFile(path).rotate(keep=3600)
    assert len(json.loads(path.read_text())["keys"]) == 3
    for wrong in (timedelta(days=-1), "1d"):
        with pytest.raises(ConfigurationError, match="keep is a timedelta or a number of seconds"):
            KeyFile(path).rotate(keep=wrong)  # type: ignore[arg-type]


def test_a_symbolic_link(path: Path) -> None:
    """A rotation by a link changes the file that it names, and processes that read the file have the new keys."""
    link, loop = path.parent / "links" / "keys.json", path.parent / "loop.json"
    link.parent.mkdir()
    link.symlink_to(path)
    loop.symlink_to(loop)
    upcoming = KeyFile(path).jwks()["keys"][1]["kid"]
    KeyFile(link).rotate()
    assert link.is_symlink()
    assert KeyFile(path).jwks()["keys"][0]["kid"] == upcoming
    assert list(link.parent.iterdir()) == [link]
    with pytest.raises(ConfigurationError):
        KeyFile(loop).rotate()
