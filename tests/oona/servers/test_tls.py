"""`rediss://` through a real TLS endpoint."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import leyline
import oona
from oona.servers import credentials
from oona.servers.embedded import EmbeddedServer
from oona.streams.client import close_client, open_client
from tests.oona.faults.proxy import Proxy, url_of

STEP = leyline.StepMetrics(step=1, loss=0.5)


class Endpoint:
    """A server behind TLS on localhost, and the file of its authority."""

    def __init__(self, server: EmbeddedServer, folder: Path, name: str):
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        self.ca_file = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        self.proxy = Proxy(server.socket_path, context)


@pytest.fixture
def endpoint(tmp_path: Path, limited_server: EmbeddedServer) -> Iterator[Endpoint]:
    endpoint = Endpoint(limited_server, tmp_path, "localhost")
    with endpoint.proxy:
        yield endpoint


def test_events_travel_through_tls(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the authority named in the URL or by the environment, and the login there too, events
    are delivered and read; neither password nor login is in any file of the run."""
    url = f"{url_of(endpoint.proxy, 'rediss')}?ssl_ca_certs={endpoint.ca_file}"
    with oona.Bus.open(tmp_path / "a", "a", url) as bus:
        assert bus.offer(STEP)
        assert bus.flush(10.0), bus.statistics()
    monkeypatch.setenv(credentials.CA_FILE, str(endpoint.ca_file))
    monkeypatch.setenv(credentials.USERNAME, "esper")
    monkeypatch.setenv(credentials.PASSWORD, "secret")
    bare = f"rediss://localhost:{endpoint.proxy.port}"
    with oona.Bus.open(tmp_path / "b", "b", bare) as bus:
        assert bus.offer(STEP)
        assert bus.flush(10.0), bus.statistics()
        assert "secret" not in repr(bus.statistics())
    assert [envelope.run_id for envelope in oona.read(bare)] == ["a", "b"]
    (tmp_path / "b" / "outbox.bin").unlink()
    assert [envelope.event for envelope in oona.read(tmp_path / "b")] == [STEP]
    for path in (tmp_path / "b").iterdir():
        assert b"secret" not in path.read_bytes(), path


def test_an_unknown_authority_is_refused(tmp_path: Path, endpoint: Endpoint) -> None:
    """Without its authority a server is not spoken to, whose certificate anybody may have made."""
    with pytest.raises(oona.ServerError, match="certificate verify failed"):
        open_client(url_of(endpoint.proxy, "rediss"))
    with oona.Bus.open(tmp_path, "run", url_of(endpoint.proxy, "rediss")) as bus:
        assert bus.offer(STEP)
        assert not bus.flush(0.5)
        assert "certificate verify failed" in bus.statistics().state


def test_a_certificate_for_another_name_is_refused(
    tmp_path: Path, limited_server: EmbeddedServer
) -> None:
    """The right authority does not help a server that has another one's name."""
    other = Endpoint(limited_server, tmp_path, "elsewhere.example")
    with other.proxy, pytest.raises(oona.ServerError, match="certificate"):
        open_client(f"{url_of(other.proxy, 'rediss')}?ssl_ca_certs={other.ca_file}")


def test_plain_speech_to_a_tls_server_is_an_error(endpoint: Endpoint) -> None:
    """redis:// to a port that speaks TLS fails as a server that does not answer, and is named."""
    with pytest.raises(oona.ServerError, match=r"redis://esper:\*\*\*@localhost"):
        open_client(url_of(endpoint.proxy))


def test_both_ways_to_the_same_server(endpoint: Endpoint, limited_server: EmbeddedServer) -> None:
    """unix:// with a login, and rediss://, reach one server."""
    clients = [
        open_client(limited_server.url.replace("://", "://esper:secret@")),
        open_client(f"{url_of(endpoint.proxy, 'rediss')}?ssl_ca_certs={endpoint.ca_file}"),
    ]
    first, second = (client.info("server")["run_id"] for client in clients)
    assert first == second
    for client in clients:
        close_client(client)
