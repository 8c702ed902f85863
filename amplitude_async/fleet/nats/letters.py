"""Dead letters: each has a subject of its own, and so the log keeps one of each key."""

import asyncio
import json
from collections.abc import Sequence
from typing import Final

from amplitude_async.exceptions import LogError
from amplitude_async.fleet.log import BuriedLetter, Letter, Place
from amplitude_async.fleet.nats.api import Api, Stored
from amplitude_async.fleet.nats.plan import Plan

__all__ = ["Letters"]

AT_ONCE: Final = 32
BATCH_BYTES: Final = 4 * 1024 * 1024


class Letters:
    """The dead letters of one project.

    Args:
        api: reads and writes them.
        plan: names their stream.
    """

    def __init__(self, api: Api, plan: Plan) -> None:
        self._api = api
        self._plan = plan

    async def bury(self, letters: Sequence[Letter]) -> None:
        """Keep letters; returns when they are durable."""
        for start in range(0, len(letters), AT_ONCE):
            some = letters[start : start + AT_ONCE]
            results = await asyncio.gather(
                *(self._bury(letter) for letter in some), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _bury(self, letter: Letter) -> None:
        subject = self._plan.letter_subject(letter.place, letter.key)
        said = {
            "key": letter.key,
            "code": letter.code,
            "message": letter.message,
            "raw": letter.raw,
        }
        body = json.dumps(said).encode() + b"\n" + letter.data
        # With none before it: one that is there already is the same letter.
        await self._api.put(subject, body, 0)

    async def read(self, after: int, limit: int) -> list[BuriedLetter]:
        """Read letters above a position, in order."""
        found: list[BuriedLetter] = []
        while len(found) < limit:
            start = (found[-1].position if found else after) + 1
            batch = await self._api.batch(
                self._plan.dead,
                self._plan.letter_subjects,
                max(start, 1),
                most=limit - len(found),
                max_bytes=BATCH_BYTES,
            )
            if not batch:
                break
            found += [_letter(message) for message in batch]
        return found

    async def forget(self, positions: Sequence[int]) -> None:
        """Take letters away for good; unknown ones are no error."""
        for position in positions:
            await self._api.delete(self._plan.dead, position)


def _letter(message: Stored) -> BuriedLetter:
    head, _, data = message.data.partition(b"\n")
    try:
        said = json.loads(head)
        destination, partition = message.subject.split(".")[2:4]
        letter = Letter(
            key=said["key"],
            place=Place(destination, int(partition)),
            data=data,
            code=said["code"],
            message=said["message"],
            raw=said["raw"],
        )
    except (ValueError, KeyError, TypeError) as error:
        msg = f"letter {message.sequence} is none of ours: {error}; delete that message"
        raise LogError(msg) from error
    return BuriedLetter(message.sequence, message.at, letter)
