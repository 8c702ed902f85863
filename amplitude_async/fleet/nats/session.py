"""One attempt to read a consumer: from winning its pin to whatever ends it."""

import secrets
from enum import Enum
from typing import Final

from amplitude_async.fleet.nats.ledger import Arrival
from amplitude_async.fleet.nats.wire import Message, describe

__all__ = ["Session", "State"]

_PULL_OVER: Final = ("404", "408")
# What ends a pull request and says nothing about the consumer.
_HARMLESS: Final = ("message size exceeds", "batch completed", "exceeded max")
_HEARTBEAT: Final = "100"


class State(Enum):
    """Where a session is."""

    WINNING = "waits for the message that brings the pin"
    READING = "takes what comes"
    BROKEN = "has ended: another is to begin"


class Session:
    """What is known of one subscription; its inbox is its own, and so is what comes in.

    Args:
        now: the time it begins.
    """

    def __init__(self, now: float) -> None:
        self.inbox = f"_INBOX.{secrets.token_hex(11)}"
        self.state = State.WINNING
        self.pin = ""
        self.number = 0
        """Of the last delivery that came since the reset."""
        self.last = Arrival(0, 0, 0.0, 0)
        """What the last one said."""
        self.heard_at = now
        self.asked_at = 0.0
        self.told_at = now
        self.reason = ""
        self._lagging = 0
        self._starving = 0
        self._looked_at = now

    def __repr__(self) -> str:
        return f"<Session {self.state.name.lower()} {self.reason}>".replace(" >", ">")

    @property
    def more(self) -> bool:
        """True where the next message is on its way already."""
        return self.state is State.READING and self.last.pending > 0

    def broke(self, reason: str) -> None:
        """End it."""
        self.state, self.reason = State.BROKEN, reason

    def looks(self, now: float, interval: float) -> bool:
        """Tell whether it is time to look whose the place is; it is noted as done."""
        if now - self._looked_at < interval:
            return False
        self._looked_at = now
        return True

    def starve(self) -> None:
        """Note that what the consumer has did not come, though there is time for it.

        Another may have its pin, or it forgot what was asked: once is no proof.
        """
        self._starving += 1
        if self._starving > 1 and self.state is not State.BROKEN:
            self.broke("what the consumer has does not come")

    def read_on(self) -> None:
        """The consumer was reset: its deliveries are numbered from one."""
        if self.state is State.WINNING:
            self.state, self.number = State.READING, 0

    def ended_pull(self, message: Message) -> str | None:
        """Judge a status; returns the name of the pull request that it ended."""
        name = message.subject.rpartition(".")[2]
        if message.status == _HEARTBEAT:
            self._compare(message)
            return None
        words = describe(message).casefold()
        harmless = any(words.startswith(known) for known in _HARMLESS)
        if message.status not in _PULL_OVER and not harmless:
            self.broke(f"{message.status} {words}")
        return name

    def _compare(self, message: Message) -> None:
        """Notice a last message that did not come: no other will show the gap."""
        said = message.headers.get("Nats-Last-Consumer", "")
        known = self.state is State.READING and said.isdigit()
        # One that is smaller comes of a reset that was not ours.
        self._lagging = self._lagging + 1 if known and int(said) != self.number else 0
        if self._lagging > 1:
            self.broke(f"delivery {said} did not come")

    def accepts(self, arrival: Arrival, message: Message) -> bool:
        """Tell whether a message is the next one; a gap ends the session."""
        pin = message.headers.get("Nats-Pin-Id", "")
        if self.state is State.WINNING:
            self.pin = pin or self.pin
            if not self.pin or arrival.number != 1:
                # Somebody had a delivery since the reset: another reset brings it back.
                return False
            self.state = State.READING
        if self.state is State.BROKEN:
            return False
        if arrival.number != self.number + 1:
            self.broke(f"delivery {arrival.number} came after {self.number}")
            return False
        self.number, self.last = arrival.number, arrival
        self._starving = 0
        return True
