"""An AWS Lambda function that tracks events: delivered before each invocation ends.

Deploy this file and this package with AMPLITUDE_API_KEY set; the handler is
``lambda_handler.handler``. Run as ``python examples/lambda_handler.py`` it invokes
itself, once for each line of JSON on its standard input.
"""

import json
import signal
import sys
from typing import Any

from amplitude_async import bind
from amplitude_async.integrations.aws_lambda import flush_after
from amplitude_async.sync import SyncAmplitude

__all__ = ["handler"]

# Made once for each environment of the function; the first event starts it.
client = SyncAmplitude.from_env()
flushing = flush_after(client)


@flushing
def handler(event: dict[str, Any], _: Any) -> dict[str, str]:
    """Take a payment."""
    bind(user_id=event["user_id"])
    client.track("Order Paid", event_properties={"order": event["order"]})
    return {"order": event["order"]}


def end(*_: object) -> None:
    """End in good order; Lambda sends SIGTERM to functions with an extension."""
    flushing.close(1.0)
    sys.exit(0)


signal.signal(signal.SIGTERM, end)

if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(handler(json.loads(line), None)), flush=True)
