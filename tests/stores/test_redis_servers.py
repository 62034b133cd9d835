"""Redis behind Sentinel, and over TLS."""

import ipaddress
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from fastapi_guard import ServiceUnavailable
from fastapi_guard.stores import Record
from fastapi_guard.stores.cached import CachedRecords, CacheLimits
from fastapi_guard.stores.kinds import SESSION
from fastapi_guard.stores.redis import RedisStore
from support.redis import free_port, running_redis, running_sentinel, until

RECORD = Record(f"{SESSION}k", b"1", "ada")


def port_of(url: str) -> int:
    """Return the port in the URL of a Redis."""
    return int(url.rpartition(":")[2].partition("/")[0])


async def test_a_primary_that_fails_behind_sentinel() -> None:
    """While the primary is gone there are 503s; then the replica is primary, with the records."""
    with ExitStack() as stack:
        primary = stack.enter_context(ExitStack())
        url = primary.enter_context(running_redis())
        replica = port_of(stack.enter_context(running_redis(None, "--replicaof", "127.0.0.1", str(port_of(url)))))
        sentinel = Sentinel([("127.0.0.1", stack.enter_context(running_sentinel(port_of(url))))], socket_timeout=5)
        async with sentinel.master_for("shop") as client, Redis(port=replica) as beside:
            store = RedisStore(client)
            cached = CachedRecords(store, CacheLimits(ttl_seconds=3600, fresh_within_seconds=0.1))
            assert await store.add(RECORD)
            assert await cached.get(RECORD.key) == [RECORD]

            async def is_replicated() -> bool:
                return await RedisStore(beside).get(RECORD.key) == [RECORD]

            async def is_known() -> bool:
                return bool(await sentinel.sentinels[0].sentinel_slaves("shop"))

            await until(is_replicated)
            await until(is_known)
            primary.close()
            with pytest.raises(ServiceUnavailable) as refused:
                await store.get(RECORD.key)
            assert refused.value.reason == "store_unreachable"

            async def is_back() -> bool:
                try:
                    return await store.add(Record("new", b"2"))
                except ServiceUnavailable:
                    return False

            await until(is_back)
            assert await store.get(RECORD.key, "new") == [RECORD, Record("new", b"2")]
            assert await store.delete(RECORD.key)
            assert await cached.get(RECORD.key) == [None]
        for watching in sentinel.sentinels:
            await watching.aclose()


def certificate(folder: Path) -> list[str]:
    """Write a certificate for this machine, signed by its own key; return the options of Redis."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.now(UTC)
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    basic = x509.BasicConstraints(ca=True, path_length=None)
    signed = builder.add_extension(host, critical=False).add_extension(basic, critical=True).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "redis.crt").write_bytes(signed.public_bytes(pem))
    (folder / "redis.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    files = ["--tls-cert-file", f"{folder}/redis.crt", "--tls-key-file", f"{folder}/redis.key"]
    return [*files, "--tls-ca-cert-file", f"{folder}/redis.crt", "--tls-auth-clients", "no"]


async def test_over_tls(tmp_path: Path) -> None:
    """A URL with `rediss` verifies the certificate of the server; one that is not trusted is a 503."""
    port = free_port()
    with running_redis(None, "--tls-port", str(port), *certificate(tmp_path)):
        trusting = RedisStore.from_url(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/redis.crt")
        assert await trusting.add(RECORD)
        assert await trusting.get(RECORD.key) == [RECORD]
        strict = RedisStore.from_url(f"rediss://127.0.0.1:{port}/0")
        with pytest.raises(ServiceUnavailable) as refused:
            await strict.get(RECORD.key)
        assert "certificate" in str(refused.value.__cause__).lower()
        for store in (trusting, strict):
            await store.aclose()
