"""What to do about a server that cannot be reached, from what it or the network said."""

from __future__ import annotations

from typing import Final

from oona.servers import credentials

_UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"
_NO_LOGIN: Final = "Authentication required"
_BAD_LOGINS: Final = ("WRONGPASS", "invalid username-password", "without any password configured")
_LOADING: Final = "loading the dataset"
_NOBODY: Final = ("Connection refused", "No such file", "not known", "No address")
"""Said where nobody listens, whatever would be spoken there."""
_HUNG_UP: Final = ("Connection closed", "reset by peer")
_LOOK: Final = "see whether it runs, and listens at this address"


def hint(url: str, reason: str) -> str:
    """Say what to look at.

    Args:
        url: a redis://, rediss:// or unix:// URL that no connection was had to.
        reason: why, as the client tells it.
    """
    if _is_in(reason, _UNTRUSTED):
        return f"name its authority: ssl_ca_certs=FILE in the URL, or {credentials.CA_FILE}"
    if _is_in(reason, _NO_LOGIN, *_BAD_LOGINS):
        return _login_hint(url)
    if _is_in(reason, _LOADING):
        return "wait until it has read its data"
    if url.startswith("rediss:") and not _is_in(reason, *_NOBODY):
        return f"{_LOOK}; perhaps it speaks no TLS: use redis:// if so"
    if url.startswith("redis:") and _is_in(reason, *_HUNG_UP):
        return f"{_LOOK}; perhaps it speaks TLS alone: use rediss:// if so"
    return _LOOK


def _is_in(reason: str, *causes: str) -> bool:
    return any(cause.lower() in reason.lower() for cause in causes)


def _login_hint(url: str) -> str:
    """Where the login came from that was not good enough, or where one may be given."""
    user, password = credentials.origins(url)
    if password is not None:
        who = (
            "user default, as none came with the password" if user is None else f"user from {user}"
        )
        return f"look at the login: {who}, password from {password}"
    given, needed = "no login was given", f"{credentials.USERNAME} and "
    if user is not None:
        given, needed = f"the user from {user} has no password", ""
    variables = f"{needed}{credentials.PASSWORD} (or {credentials.PASSWORD_FILE})"
    return f"{given}: write it in the URL, or set {variables}"
