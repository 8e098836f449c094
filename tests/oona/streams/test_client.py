"""What readers make of a server's lies and of keys that are none of Esper's."""

from __future__ import annotations

import pytest
import redis

from oona.streams.client import server_errors
from oona.streams.entry import BEGINNING
from oona.streams.reader import RedisReader
from oona.streams.transport import ServerError


@pytest.mark.parametrize("number", [float("1.e999"), int("1" + "0" * 400)], ids=["inf", "huge"])
def test_a_number_that_no_memory_has_is_a_server_error(number: float) -> None:
    """Arithmetic that fails on what a server claims is the server's fault, and names it."""
    with pytest.raises(ServerError, match=r"redis://host: "), server_errors("redis://host"):
        int(number) / 2**20


def test_a_key_that_is_no_stream_has_no_entries(oona_url: str, admin: redis.Redis) -> None:
    """What became somebody else's key after it was found is read as empty."""
    admin.set("esper:run:metric", "no stream")
    reader = RedisReader(oona_url)
    assert list(reader.entries(b"esper:run:metric")) == []
    assert reader.wait({b"esper:run:metric": BEGINNING}, 0.001) == []
    reader.close()
