"""The way to a Redis server: the only module that knows the redis package."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError as NoPermissionError
from redis.exceptions import OutOfMemoryError as OutOfMemoryError
from redis.exceptions import ResponseError as ResponseError
from redis.retry import Retry

import leyline
from oona.servers import credentials
from oona.servers import url as bus_url
from oona.streams.bounded_socket import AnswerLimits, BoundedSocket
from oona.streams.transport import ServerError

CONNECT_TIMEOUT_S: Final = 0.5
REPLY_TIMEOUT_S: Final = 1.0
"""After which a server counts as dead."""
WRITER_LIMITS: Final = AnswerLimits(1024 * 1024, 10.0)
"""More than all answers to one round of a writer's commands."""
READER_LIMITS: Final = AnswerLimits(192 * 1024 * 1024, 60.0)
_POLL_INTERVAL_S: Final = 0.005


class _Bounded:
    """Makes a connection of the client one whose answers have an end."""

    def __init__(self, *args: Any, limits: AnswerLimits, **options: Any):
        self._limits = limits
        super().__init__(*args, **options)

    def _connect(self) -> Any:
        socket = super()._connect()  # type: ignore[misc] # the client's, mixed in below
        return BoundedSocket(socket, self._limits)


class _Tcp(_Bounded, redis.Connection):
    pass


class _Tls(_Bounded, redis.SSLConnection):
    pass


class _Unix(_Bounded, redis.UnixDomainSocketConnection):
    pass


_CONNECTIONS: Final[dict[str, Any]] = {"redis": _Tcp, "rediss": _Tls, "unix": _Unix}


_CLIENT_ERRORS: Final = (
    *(redis.RedisError, OSError, ValueError, TypeError, LookupError, AttributeError),
    *(ArithmeticError, RecursionError),
)


@contextmanager
def server_errors(url: str) -> Iterator[None]:
    """Turn what the client raises into a ServerError that names the server, not its password.

    An answer that is none of the protocol makes the client raise errors of every kind.
    """
    try:
        yield
    except leyline.BusError:
        raise
    except _CLIENT_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise ServerError(f"{bus_url.redact(url)}: {reason}") from error


def is_no_stream(error: ResponseError) -> bool:
    """Say whether a server refused a command because the key is somebody else's."""
    return str(error).startswith("WRONGTYPE")


@contextmanager
def unless_no_stream() -> Iterator[None]:
    """Do nothing with a key that is no stream, or is none any more: it is somebody else's."""
    try:
        yield
    except ResponseError as error:
        if not is_no_stream(error):
            raise


def open_pool(url: str, limits: AnswerLimits) -> redis.ConnectionPool:
    """Make a pool whose connections fail at once: who calls decides when to try again.

    Args:
        url: a redis://, rediss:// or unix:// URL; what it lacks of a login, or of the authority
            that a certificate is verified by, comes from the environment.
        limits: of what a server may answer to what is asked at once.

    Raises:
        BusError: the URL is malformed or refused, or what the environment names is.
    """
    bus_url.check_url(url)
    missing = credentials.missing_in(url)
    try:
        return redis.ConnectionPool.from_url(
            url,
            connection_class=_CONNECTIONS[url.partition(":")[0]],
            limits=limits,
            protocol=2,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=REPLY_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            **missing,
        )
    except ValueError as error:
        raise malformed(url) from error


def open_client(url: str) -> Any:
    """Make a client of a server that answers.

    Any: the client's own types mix text with bytes and replies with awaitables.

    Raises:
        BusError: as for `open_pool`.
        ServerError: no server answers there.
    """
    client = redis.Redis(connection_pool=open_pool(url, READER_LIMITS))
    with server_errors(url):
        client.ping()
    return client


def close_client(client: Any) -> None:
    """Let go of a client's connections."""
    client.close()
    client.connection_pool.disconnect()


def ask(client: Any, *command: str | bytes | int) -> Any:
    """Send one command and return its answer as the server gave it."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command(*command)
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)


def tls_version(client: Any) -> str:
    """The version of TLS that a client of a rediss:// server speaks, as in "TLSv1.3"."""
    connection = client.connection_pool.get_connection()
    try:
        return str(connection._sock.version())
    finally:
        client.connection_pool.release(connection)


def malformed(url: str) -> leyline.BusError:
    """The error of a URL whose options the client does not take."""
    return leyline.BusError(
        f"bus URL {bus_url.redact(url)!r} refused: an option after its ? is unknown or malformed"
    )


def wait_for_readers(url: str, timeout_s: float) -> bool:
    """Wait until nobody else is connected to a server; False if somebody still is."""
    deadline = time.monotonic() + timeout_s
    pool = open_pool(url, WRITER_LIMITS)
    with server_errors(url), closing(redis.Redis(connection_pool=pool)) as client:
        while client.info("clients")["connected_clients"] > 1:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
    return True
