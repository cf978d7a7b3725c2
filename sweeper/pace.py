"""How often a worker comes to the store while it trains, and while it has nothing to train."""

from __future__ import annotations

BEATS_A_LEASE = 30
"""How often a lease is renewed before it would run out."""
POLL_SECONDS = 1.0
LONGEST_POLL_SECONDS = 10.0
_SHARE = 0.1


def idle_seconds(idle: float) -> float:
    """How long a worker without work waits before it looks for some again.

    Trials may be lost, or handed back, at any time. Near the end of a large study, though, most workers wait
    for the last trials, and all of them together would keep the store from those that train.

    Args:
        idle: for how many seconds it has had none; the wait prolongs that by a tenth.
    """
    return min(max(POLL_SECONDS, _SHARE * idle), LONGEST_POLL_SECONDS)
