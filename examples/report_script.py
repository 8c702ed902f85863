"""A script that tracks what it does: no event loop, no await.

Run it with AMPLITUDE_API_KEY set: ``python examples/report_script.py user-1 user-2``.
"""

import sys

from amplitude_async import bound
from amplitude_async.sync import SyncAmplitude

__all__: list[str] = []


def main() -> None:
    """Mail a report to each user named on the command line."""
    with SyncAmplitude.from_env() as client:
        for user in sys.argv[1:]:
            with bound(user_id=user, event_properties={"job": "nightly"}):
                client.track("Report Mailed")
        stats = client.flush()
        print(stats.delivered, "delivered,", stats.pending, "waiting")


if __name__ == "__main__":
    main()
