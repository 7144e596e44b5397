"""Count the descriptors that a process may have open, and those that its accounts need."""

from __future__ import annotations

import contextlib
import resource

from ..errors import ConfigError

RESERVE = 64  # standard streams, output, event loop, metrics, name look-ups, sometimes a second REST connection
REST = 1  # a connection that is kept open
STATE = 4  # the database, its journal and the journal's index, and the lock
MOST = (1 << 20, 10240)  # tried where "unlimited" is refused: Linux and macOS accept at least these


def raise_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one, and return the new limit.

    The soft limit is 1,024 nearly everywhere, for programs that use select(2). This one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = [hard] if hard != resource.RLIM_INFINITY else [hard, *MOST]
    for limit in wanted:
        with contextlib.suppress(ValueError, OSError):
            if soft != limit:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            break
    return limit_now()


def limit_now() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return int(soft) if soft != resource.RLIM_INFINITY else MOST[0]


def needed(accounts: int, endpoints: int, *, state: bool) -> int:
    """Return how many descriptors a tail of so many accounts needs. ``endpoints`` is the number per account."""
    return RESERVE + accounts * _per_account(endpoints, state)


def _per_account(endpoints: int, state: bool) -> int:
    return endpoints + REST + (STATE if state else 0)


def require(accounts: int, endpoints: int, *, state: bool, limit: int | None = None) -> None:
    """Raise ConfigError if the accounts need more descriptors than ``limit``. By default, this process's.

    A single account is never refused.
    """
    wanted = needed(accounts, endpoints, state=state)
    limit = limit_now() if limit is None else limit
    if accounts > 1 and wanted > limit:
        raise ConfigError(
            f"{accounts} accounts need {wanted} open files, but this process may have only {limit}.",
            why=f"Each account needs {_per_account(endpoints, state)}: connections, and the files of its state; "
            f"{RESERVE} are for everything else.",
            remedy=f"Raise the hard limit to {wanted}: LimitNOFILE= in a unit, --ulimit nofile= in Docker, "
            "/etc/security/limits.conf. Or run the accounts in several processes.",
        )
