"""The least-privilege ACL file that is shipped, under a real server."""

from __future__ import annotations

import pytest
import redis

from oona.servers.embedded import ACL_FILE

FORBIDDEN = [
    "ACL SETUSER esper +@all",
    "ACL LIST",
    "BGSAVE",
    "CLIENT KILL ID 1",
    "CLIENT LIST",
    "CLUSTER INFO",
    "CONFIG GET *",
    "CONFIG SET maxmemory 0",
    "DEBUG OBJECT esper:x",
    "DEL esper:run:metric",
    "EVAL return(1) 0",
    "FAILOVER",
    "FCALL f 0",
    "FLUSHALL",
    "FLUSHDB",
    "FUNCTION LIST",
    "GET esper:run:metric",
    "KEYS *",
    "LATENCY RESET",
    "MIGRATE host 6379 esper:run:metric 0 100",
    "MODULE LIST",
    "MONITOR",
    "PSYNC ? -1",
    "PUBLISH esper:x y",
    "RENAME esper:a esper:b",
    "REPLICAOF NO ONE",
    "RESTORE esper:x 0 x",
    "SAVE",
    "SCRIPT LOAD return(1)",
    "SET esper:x y",
    "SHUTDOWN NOSAVE",
    "SLOWLOG GET",
    "SORT esper:x",
    "SUBSCRIBE esper:x",
    "SWAPDB 0 1",
    "UNLINK esper:run:metric",
    "XDEL esper:run:metric 1-1",
    "XGROUP DESTROY esper:run:metric g",
]


@pytest.fixture
def limited(oona_url: str) -> redis.Redis:
    return redis.Redis.from_url(oona_url)


def test_what_the_bus_does_not_need_is_refused_by_the_server(
    limited: redis.Redis, admin: redis.Redis
) -> None:
    """The server knows these 38 commands and refuses each to the user whom the shipped file
    makes (DEBUG to everybody)."""
    assert len(FORBIDDEN) == 38
    with limited:
        for command in FORBIDDEN:
            known = admin.execute_command("COMMAND", "INFO", command.split()[0])
            assert known not in ({}, [None]), f"{command} is no command"
            with pytest.raises(redis.exceptions.ResponseError) as refusal:
                limited.execute_command(*command.split())
            allowed = ("no permissions to run", "DEBUG command not allowed")
            assert any(words in str(refusal.value) for words in allowed), command
        assert limited.ping()


def test_other_keys_are_out_of_reach(limited: redis.Redis) -> None:
    """What the user may do, it may do to esper:* alone."""
    with limited:
        limited.xadd("esper:run:metric", {"a": "b"})
        for command in ("XADD other * a b", "XRANGE other - +", "XLEN other", "XTRIM x MAXLEN 0"):
            with pytest.raises(redis.exceptions.NoPermissionError, match="key"):
                limited.execute_command(*command.split())


def test_without_the_file_s_user_there_is_no_way_in(limited: redis.Redis, oona_url: str) -> None:
    """Neither somebody without a login nor one with a wrong password may do anything."""
    limited.close()
    for url in (oona_url.replace("esper:secret@", ""), oona_url.replace("secret", "wrong")):
        with (
            redis.Redis.from_url(url) as client,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            client.ping()


def test_the_file_as_it_is_lets_nobody_in() -> None:
    """It holds no password: the operator's own has to be filled in."""
    words = ACL_FILE.read_text().split()
    assert "nopass" not in words
    assert not [word for word in words if word.startswith((">", "#"))]
