"""What is good and bad about a server for Esper, found by asking it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import leyline
from oona.servers import url as bus_url
from oona.servers.finding import Finding
from oona.servers.hint import hint
from oona.servers.rights import dangers, is_refused, refused_of, rights
from oona.streams.client import (
    ResponseError,
    ask,
    close_client,
    open_client,
    server_errors,
    tls_version,
)
from oona.streams.names import KEY_PREFIX
from oona.streams.transport import ServerError

_OLDEST_VERSION: Final = (6, 2)
"""The first with XAUTOCLAIM and XTRIM MINID."""
_NUM_PINGS: Final = 50
_LONGEST_MS: Final = 50.0
"""p99 that a server may need; the publisher gives up on an answer after a second."""
_FULL_SHARE: Final = 0.9
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def examine(url: str) -> list[Finding]:
    """Look at a server: its version, speed, rights, TLS, memory and persistence.

    Nothing is changed, but for a stream of its own that goes again.

    Args:
        url: a redis://, rediss:// or unix:// URL; passwords are in no finding.

    Raises:
        BusError: the URL is malformed or refused, or the server went away meanwhile.
    """
    bus_url.check_url(url)
    if url in bus_url.NAMED:
        raise leyline.BusError(f"bus {url!r} refused: it has no server to ask; give a server's URL")
    try:
        client = open_client(url)
    except ServerError as error:
        return [Finding("connection", str(error), hint(url, str(error)))]
    try:
        with server_errors(url):
            return list(_findings(client, url))
    finally:
        close_client(client)


def _findings(client: Any, url: str) -> Iterator[Finding]:
    info = _info(client)
    yield _version(info)
    yield _mode(info)
    yield _encryption(client, url)
    scratch = f"{KEY_PREFIX}doctor:{os.urandom(8).hex()}"
    refused = refused_of(client, scratch)
    yield _latency("PING", client.ping)
    if "XADD" not in refused:
        yield _appending(client, scratch)
    yield rights(refused)
    yield dangers(client, url)
    yield _memory(info)
    yield _eviction(info)
    yield _persistence(client, info)
    if "XADD" not in refused and not _remove(client, scratch):
        yield Finding("scratch", f"the stream {scratch} was left: it may not be removed")


def _info(client: Any) -> Mapping[str, Any]:
    """What the server tells of itself; nothing if it may not be asked."""
    try:
        return client.info("all")  # type: ignore[no-any-return] # a dict by the client's contract
    except ResponseError:
        return {}


def _unseen(subject: str) -> Finding:
    return Finding(subject, "not seen: the user may not ask (INFO)", is_seen=False)


def _version(info: Mapping[str, Any]) -> Finding:
    version = str(info.get("valkey_version") or info.get("redis_version") or "")
    if not version:
        return _unseen("version")
    name = str(info.get("server_name") or "redis")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    is_old = name == "redis" and numbers < _OLDEST_VERSION
    mend = "upgrade it: consumers need commands that came with Redis 6.2" if is_old else None
    return Finding("version", f"{name} {version}", mend)


def _mode(info: Mapping[str, Any]) -> Finding:
    if "role" not in info:
        return _unseen("role")
    if info.get("cluster_enabled"):
        return Finding("role", "a node of a cluster", "use a server outside a cluster")
    if info["role"] != "master":
        return Finding("role", "a replica, which refuses writes", "give the URL of its primary")
    return Finding("role", "primary, no cluster")


def _encryption(client: Any, url: str) -> Finding:
    parts = urlsplit(url)
    if parts.scheme == "rediss":
        return Finding("encryption", f"{tls_version(client)}, certificate verified")
    if parts.scheme == "unix":
        return Finding("encryption", "none, and none needed on a unix socket")
    if parts.hostname in _LOOPBACK:
        return Finding("encryption", "none, and none needed on this machine")
    return Finding(
        "encryption",
        f"none: events and password can be read on the way to {parts.hostname}",
        "use rediss://, and ssl_ca_certs=FILE if its authority is your own",
    )


def _latency(name: str, call: Callable[[], object]) -> Finding:
    times_ms = []
    for _ in range(_NUM_PINGS):
        start_ns = time.perf_counter_ns()
        call()
        times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    p99_ms = statistics.quantiles(times_ms, n=100, method="inclusive")[98]
    told = f"p50 {statistics.median(times_ms):.2f} ms, p99 {p99_ms:.2f} ms"
    mend = "use a nearer or idler server" if p99_ms > _LONGEST_MS else None
    return Finding(f"latency {name}", told, mend)


def _appending(client: Any, scratch: str) -> Finding:
    try:
        return _latency("XADD", lambda: client.xadd(scratch, {"x": bytes(1000)}))
    except ResponseError as error:
        return Finding("appending", f"refused: {error}", "see its role, memory and persistence")


def _memory(info: Mapping[str, Any]) -> Finding:
    if "maxmemory" not in info:
        return _unseen("memory")
    used_mb, limit_mb = (int(info[name]) / 2**20 for name in ("used_memory", "maxmemory"))
    if not limit_mb:
        mend = "set maxmemory: at its limit the bus gives up old metrics"
        return Finding("memory", f"{used_mb:.0f} MiB used, no limit", mend)
    is_full = used_mb > _FULL_SHARE * limit_mb
    told = f"{used_mb:.0f} of {limit_mb:.0f} MiB used"
    return Finding("memory", told, "raise maxmemory or free some" if is_full else None)


def _eviction(info: Mapping[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return _unseen("eviction")
    mend = "set maxmemory-policy noeviction: else whole streams vanish"
    return Finding("eviction", str(policy), None if policy == "noeviction" else mend)


def _persistence(client: Any, info: Mapping[str, Any]) -> Finding:
    if "rdb_last_bgsave_status" not in info:
        return _unseen("persistence")
    if info["rdb_last_bgsave_status"] != "ok":
        mend = "see the server's log; it may refuse writes until a snapshot succeeds"
        return Finding("persistence", "its last snapshot failed", mend)
    kept = "an append-only file" if info.get("aof_enabled") else _snapshots(client)
    resent = "what a restart loses is sent again from a live run's outbox"
    return Finding("persistence", f"{kept}; {resent}")


def _snapshots(client: Any) -> str:
    """What a server without an append-only file keeps on disk."""
    try:
        answer = ask(client, "CONFIG", "GET", "save")
    except ResponseError:
        answer = []
    if not answer:  # some hosts hide what they set
        return "no append-only file, snapshots not seen (CONFIG)"
    return "none, nothing is on disk" if answer == [b"save", b""] else "snapshots"


def _remove(client: Any, scratch: str) -> bool:
    """Have the scratch stream go: by expiry where nothing may be deleted."""
    removers = (("UNLINK", scratch), ("PEXPIRE", scratch, 1))
    return any(not is_refused(client, remover) for remover in removers)
