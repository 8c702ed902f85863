"""Dead letters are read in pages that a log can answer with, however large they are."""

from amplitude_async.fleet.letters import first_letters
from amplitude_async.fleet.log import BuriedLetter, Letter, Place
from amplitude_async.fleet.memory import MemoryLog

__all__: list[str] = []

MEGABYTE = 1024 * 1024


class WatchedLog(MemoryLog):
    """Notes the bytes of its largest answer."""

    largest = 0

    async def letters(self, after: int, limit: int) -> list[BuriedLetter]:
        """Read dead letters."""
        found = await super().letters(after, limit)
        size = sum(len(one.letter.data) for one in found)
        self.largest = max(self.largest, size)
        return found


async def test_a_hundred_letters_of_a_megabyte_are_no_answer_of_a_hundred() -> None:
    """As many as were asked for, from the first on."""
    log = WatchedLog()
    await log.open()
    place, data = Place("amplitude", 0), b"x" * MEGABYTE
    await log.bury(
        [Letter(f"{n}", place, data, 400, "no", raw=True) for n in range(150)]
    )
    found = await first_letters(log, 0, 101)
    assert [one.letter.key for one in found] == [f"{n}" for n in range(101)]
    assert log.largest <= 20 * MEGABYTE
    assert len(await first_letters(log, found[-1].position, 101)) == 49
