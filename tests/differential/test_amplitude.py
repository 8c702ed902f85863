"""Amplitude: the same calls through the official Python SDK and through ours.

Both send to a recorder over a real socket. The official SDK runs in a thread, with its
own threads, as in a service that uses it.
"""

import asyncio
import copy
import enum
import logging
import random
import string
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import amplitude as official
import pytest
from amplitude.constants import EventLogLevel

from amplitude_async import (
    Amplitude,
    Event,
    EventOptions,
    Identify,
    Revenue,
)
from tests.differential.conftest import (
    ABSENT,
    Difference,
    Json,
    Leaf,
    Recorder,
    compare,
    sort_out,
    table_of,
)

__all__: list[str] = []

TEXTS: Final = (
    *("app_version", "version_name", "platform", "os_name", "os_version"),
    *("device_brand", "device_manufacturer", "device_model", "carrier", "country"),
    *("region", "city", "dma", "language", "ip", "user_agent", "product_id"),
    *("revenue_type", "currency", "idfa", "idfv", "adid", "android_id", "partner_id"),
)
FLOATS: Final = ("price", "revenue", "location_lat", "location_lng")
WHOLE: Final = ("quantity", "event_id", "session_id", "time")
OPERATIONS: Final = (
    *("set", "set_once", "append", "prepend", "pre_insert", "post_insert"),
    *("remove", "add", "unset", "clear_all"),
)
WIRE_OPERATIONS: Final = {
    "set_once": "$setOnce",
    "pre_insert": "$preInsert",
    "post_insert": "$postInsert",
}
PROPERTIES: Final = ("event_properties", "user_properties", "group_properties")
FIRST_MS: Final = 1_600_000_000_000
MOST_CHARACTERS: Final = 1024
MOST_KEYS: Final = 1024
PLAN: Final = {"branch": "main", "source": "web", "version": "1", "version_id": "v"}
METADATA: Final = {"source_name": "ampli", "source_version": "2.0.0"}


class Colour(enum.Enum):
    """A value as applications have them."""

    RED = "red"
    THREE = 3


class Case(NamedTuple):
    """One call of a verb, in words that both SDKs are given in their own way."""

    number: int
    kind: str
    """The verb."""

    given: Json
    """Its arguments but the options, or the fields of the event."""

    options: Json
    """Fields of the event's options; ids among them."""

    @property
    def asked(self) -> Json:
        """Everything that was asked for, as a failure shows it."""
        return {**self.given, **self.options}


# --- The dice ---


class Dice(random.Random):
    """Throws field sets: every field, value type and operation that both SDKs have."""

    def case(self, number: int) -> Case:
        """Throw one call."""
        kind = self.choices(
            ("track", "identify", "group_identify", "set_group", "revenue"),
            (50, 20, 12, 8, 10),
        )[0]
        given: Json = getattr(self, kind)(number)
        return Case(number, kind, given, self.options(number, kind))

    def track(self, number: int) -> Json:
        """Throw the fields that are no options."""
        fields: Json = {"event_type": self.choice(("Signed Up", "é ✓", f"e{number}"))}
        for name in PROPERTIES:
            if self.chance(0.5):
                fields[name] = self.properties()
        if self.chance(0.3):
            fields["groups"] = {
                f"type {index}": self.group() for index in range(self.randint(0, 3))
            }
        return fields

    def identify(self, _number: int) -> Json:
        """Throw operations in any order, and sometimes event properties."""
        given: Json = {"operations": self.operations()}
        if self.chance(0.2):
            given["event_properties"] = self.properties()
        return given

    def group_identify(self, number: int) -> Json:
        """Throw operations on a group, and sometimes further properties."""
        given: Json = {
            "group_type": self.choice(("company", "team")),
            "group_name": f"group#{number}",
            **self.identify(number),
        }
        if self.chance(0.2):
            given["user_properties"] = self.properties()
        return given

    def set_group(self, _number: int) -> Json:
        """Throw one group or several."""
        return {"group_type": self.choice(("company", "team")), "names": self.group()}

    def revenue(self, _number: int) -> Json:
        """Throw a sale: a price, and anything else that both take."""
        fields: Json = {"price": self.choice((self.number(), 9.99, 0.0, -5.5))}
        if self.chance(0.05):
            fields["price"] = self.randint(1, 100)
        if self.chance(0.5):
            fields["quantity"] = self.randint(1, 9)
        if self.chance(0.3):
            fields["revenue"] = self.number()
        for name in ("product_id", "revenue_type", "currency", "receipt"):
            if self.chance(0.4):
                fields[name] = self.text()
        if self.chance(0.2):
            fields["receipt_sig"] = self.text()
        if self.chance(0.5):
            fields["properties"] = self.properties()
        return fields

    def options(self, number: int, kind: str) -> Json:
        """Throw ids and any of the fields that every kind of event has."""
        options = self.ids(number, kind)
        few = self.choice((0.02, 0.2, 0.9))
        for name in TEXTS:
            if self.chance(few):
                options[name] = self.text()
        for name in FLOATS:
            if self.chance(few):
                whole = self.chance(0.05)
                options[name] = self.randint(0, 90) if whole else self.number()
        for name in WHOLE:
            if self.chance(few):
                options[name] = FIRST_MS + self.randrange(10**11)
        if self.chance(few):
            options["plan"] = self.some_of(PLAN)
        if self.chance(few):
            options["ingestion_metadata"] = self.some_of(METADATA)
        return options

    def ids(self, number: int, kind: str) -> Json:
        """Throw whose event it is; the number of the call is in at least one id."""
        wanted = self.choice(("user", "user", "device", "both", "both"))
        options: Json = {}
        if wanted != "device":
            options["user_id"] = f"user#{number}"
        if wanted != "user":
            options["device_id"] = f"device#{number}"
        if kind == "group_identify" and self.chance(0.5):
            options = {}
        if self.chance(0.03):
            options["user_id"] = number if self.chance(0.5) else uuid.UUID(int=number)
        if self.chance(0.03):
            options[self.choice(("user_id", "device_id"))] = ""
        if self.chance(0.7):
            options["insert_id"] = f"insert#{number}"
        return options

    def operations(self) -> list[tuple[Any, ...]]:
        """Throw operations; keys are few, so that some are used twice."""
        thrown: list[tuple[Any, ...]] = []
        for _ in range(self.choice((0, 1, 1, 2, 3, 5, 8))):
            name = self.choices(OPERATIONS, (*[6] * 9, 1))[0]
            key = f"k{self.randrange(12)}"
            if name == "clear_all":
                thrown.append((name,))
            elif name == "unset":
                thrown.append((name, key))
            elif name == "add":
                thrown.append((name, key, self.choice((self.number(), 1, -3, 0))))
            else:
                thrown.append((name, key, self.value(plain=False)))
        return thrown

    def properties(self) -> Json:
        """Throw a dictionary, now and then of more keys than any event has."""
        if self.chance(0.002):
            return {f"k{index}": index for index in range(MOST_KEYS + 1)}
        return {self.key(): self.value() for _ in range(self.choice((0, 1, 3, 6)))}

    def key(self) -> Any:
        """Throw a key; a rare one is no text."""
        if self.chance(0.004):
            return self.randrange(100)
        return self.choice(("plan", "$tags", "", 'a "b"', "clé", "x.y", self.text()))

    def value(self, *, plain: bool = True) -> Any:
        """Throw a value: mostly what JSON has, sometimes what only we can send."""
        if self.chance(0.04):
            return self.choice((None, "x" * 1500, *self.rich()))
        if plain and self.chance(0.03):
            # Inside an Identify, these break the official SDK's whole batch.
            return self.choice(tuple(Colour))
        return self.json(0)

    def rich(self) -> tuple[Any, ...]:
        """Throw values that are no JSON but have a form in it."""
        return (
            datetime.fromtimestamp(self.randrange(2**31), UTC),
            date(2024, 2, 29),
            uuid.UUID(int=self.getrandbits(128)),
            Decimal(self.randrange(10_000)) / 100,
            (1, "two"),
            {self.randrange(9)},
            [[1, 2], [3]],
            [1, None],
            {"inner": {"when": date(2024, 1, 1)}},
        )

    def json(self, depth: int) -> Any:
        """Throw a JSON value, nested three deep at most."""
        throw = self.randrange(10 if depth < 3 else 7)
        if throw < 2:
            return self.text()
        if throw == 2:
            return self.choice((0, 1, -1, 2**31, 2**53 + 1, -(2**63), 2**64))
        if throw == 3:
            return self.number()
        if throw == 4:
            return self.chance(0.5)
        if throw < 7:
            many = self.choice((0, 1, 4))
            return [self.choice((self.text(), 7, 0.5, True)) for _ in range(many)]
        if throw == 7:
            return [{"k": self.json(depth + 2)} for _ in range(self.randint(1, 2))]
        return {self.text(): self.json(depth + 1) for _ in range(self.randint(0, 3))}

    def number(self) -> float:
        """Throw a finite number of any size."""
        usual = (0.0, 0.1, 1.5, -2.25, 19.99, 100.0, 1e-7, 1e21, 1.7e308, 5e-324)
        return self.choice((*usual, self.uniform(-1e6, 1e6)))

    def text(self) -> str:
        """Throw a text of any characters that UTF-8 has."""
        usual = ("", "a", "plain text", "naïve café", "日本語", "🙂", "\x00\x1f\x7f")
        odd = ('"\\/\b\n\t', "</script>", "\u2028", "null", "NaN", "-1", "$remote")
        letters = self.choices(string.ascii_letters, k=self.randint(1, 12))
        return self.choice((*usual, *odd, "".join(letters), "".join(letters)))

    def group(self) -> Any:
        """Throw a group name, several, or one that is a number."""
        if self.chance(0.05):
            return self.randrange(1000)
        return self.choice(("acme", "15", ["15", "16"], [], self.text()))

    def some_of(self, fields: Mapping[str, str]) -> Json:
        """Throw some members of an object, never none."""
        kept = {name: value for name, value in fields.items() if self.chance(0.6)}
        return kept or dict(fields)

    def chance(self, of: float) -> bool:
        """Throw yes or no."""
        return self.random() < of


# --- The two roads ---


def send_official(cases: list[Case], url: str, config: Json) -> None:
    """Make every call with the official SDK, and wait until all is sent."""
    made = official.Config(
        server_url=url, event_log_level=EventLogLevel.NONE, **copy.deepcopy(config)
    )
    for name, kind in OFFICIAL_KINDS.items():
        if name in config:
            setattr(made, name, kind(**config[name]))
    client = official.Amplitude("key", made)
    for case in cases:
        perform_official(client, copy.deepcopy(case))
    for sending in client.flush():
        if sending is not None:
            sending.result()
    client.shutdown()


OFFICIAL_KINDS: Final[dict[str, Callable[..., Any]]] = {
    "plan": official.Plan,
    "ingestion_metadata": official.IngestionMetadata,
}


def perform_official(client: Any, case: Case) -> None:
    """Make one call with the official SDK."""
    given = case.given
    options = official.EventOptions()
    for name, value in case.options.items():
        kind = OFFICIAL_KINDS.get(name)
        options[name] = value if kind is None else kind(**value)
    match case.kind:
        case "track":
            event = official.BaseEvent(**given)
            event.load_event_options(options)
            client.track(event)
        case "identify":
            built = operate(official.Identify(), given)
            client.identify(built, options, given.get("event_properties"))
        case "group_identify":
            client.group_identify(
                given["group_type"],
                given["group_name"],
                operate(official.Identify(), given),
                options,
                given.get("event_properties"),
                given.get("user_properties"),
            )
        case "set_group":
            client.set_group(given["group_type"], given["names"], options)
        case "revenue":
            client.revenue(official.Revenue(**given), options)


async def send_ours(cases: list[Case], url: str, config: Json) -> None:
    """Make every call with our client, and wait until all is sent."""
    options = {"server_url": url, "trust_env": False, **config}
    async with Amplitude("key", **options) as client:
        for case in cases:
            await perform_ours(client, case)
        stats = await client.flush(60)
    assert stats.balanced
    assert stats.pending == 0


async def perform_ours(client: Amplitude, case: Case) -> None:
    """Make one call with our client; track takes each of its three roads in turn."""
    given, fields = case.given, case.options
    further = {name: given[name] for name in PROPERTIES if name in given}
    match case.kind, case.number % 3:
        case "track", 0:
            await client.track(Event(**given), EventOptions(**fields))
        case "track", 1:
            await client.track(Event(**given, **fields))
        case "track", _:
            kept = {name: given[name] for name in given if name != "event_type"}
            await client.track(given["event_type"], **kept, **fields)
        case "identify", _:
            await client.identify(operate(Identify(), given), **fields, **further)
        case "group_identify", _:
            built = operate(Identify(), given)
            group = given["group_type"], given["group_name"]
            await client.group_identify(*group, built, **fields, **further)
        case "set_group", _:
            group = given["group_type"], given["names"]
            await client.set_group(*group, EventOptions(**fields))
        case "revenue", _:
            await client.revenue(Revenue(**given), EventOptions(**fields))


def operate(identify: Any, given: Json) -> Any:
    """Do the operations on an Identify of either SDK."""
    for name, *arguments in given["operations"]:
        getattr(identify, name)(*arguments)
    return identify


# --- What differs, and why ---


def takes(key: object, value: object) -> bool:
    """Tell whether the official SDK takes a property; its rule, in our words."""
    if not isinstance(key, str):
        return False
    if isinstance(value, dict):
        return all(takes(*item) for item in value.items())
    if isinstance(value, list):
        return all(
            takes("", item) if isinstance(item, dict) else _is_scalar(item)
            for item in value
        )
    return value is None or isinstance(value, enum.Enum) or _is_scalar(value)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float)


def refused_operations(case: Case) -> set[tuple[str, str]]:
    """Give wire name and key of what a later use of the key can change."""
    refused = {
        operation[1]
        for operation in case.given.get("operations", ())
        if len(operation) > 2 and not takes(*operation[1:])
    }
    return {
        (WIRE_OPERATIONS.get(name, f"${name}"), key)
        for name, key, *_ in (o for o in case.given["operations"] if len(o) > 1)
        if key in refused
    }


def _is_null(leaf: Leaf) -> bool:
    if leaf.theirs is not ABSENT or leaf.ours is not None:
        return False
    return len(leaf.path) == 2 and leaf.path[0] in PROPERTIES


def _is_cut(leaf: Leaf) -> bool:
    theirs, ours = leaf.theirs, leaf.ours
    return (
        isinstance(ours, str)
        and len(ours) > MOST_CHARACTERS
        and theirs == ours[:MOST_CHARACTERS]
    )


def _has_many_keys(leaf: Leaf) -> bool:
    within = len(leaf.path) == 2 and leaf.theirs is ABSENT
    return within and len(_asked(leaf)) > MOST_KEYS


def _asked(leaf: Leaf) -> Json:
    """Give the dictionary of properties that a leaf lies in."""
    case: Case = leaf.case
    name = str(leaf.path[0]) if leaf.path else ""
    if name not in PROPERTIES:
        return {}
    if case.kind == "revenue" and name == "event_properties":
        name = "properties"
    asked: Json = case.given.get(name, {})
    return asked


def _costs_the_dictionary(leaf: Leaf) -> bool:
    asked = _asked(leaf)
    unpopular = not all(takes(*item) for item in asked.items())
    if leaf.case.kind == "revenue":
        # It looks at the sale's own keys and the properties as one.
        return unpopular and leaf.theirs is ABSENT
    return unpopular and len(leaf.path) == 1 and leaf.theirs is ABSENT


def _is_refused_operation(leaf: Leaf) -> bool:
    if leaf.case.kind not in {"identify", "group_identify"}:
        return False
    refused = refused_operations(leaf.case)
    if len(leaf.path) >= 3:
        return (leaf.path[1], leaf.path[2]) in refused
    if len(leaf.path) == 2:
        sent = leaf.ours if leaf.theirs is ABSENT else leaf.theirs
        return isinstance(sent, dict) and all(
            (leaf.path[1], key) in refused for key in sent
        )
    return bool(refused) and leaf.theirs is ABSENT


def _is_whole_number(leaf: Leaf) -> bool:
    (name,) = leaf.path if len(leaf.path) == 1 else ("",)
    given = leaf.case.options.get(name)
    return name in FLOATS and leaf.theirs is ABSENT and leaf.ours == given


def _is_whole_price(leaf: Leaf) -> bool:
    if leaf.case.kind != "revenue" or leaf.path or leaf.theirs is not ABSENT:
        return False
    return isinstance(leaf.case.given["price"], int)


def _is_id_of_another_type(leaf: Leaf) -> bool:
    given = leaf.case.options.get("user_id")
    return (
        leaf.path in {(), ("user_id",)}
        and leaf.theirs is ABSENT
        and isinstance(given, int | uuid.UUID)
    )


def _is_empty_id(leaf: Leaf) -> bool:
    at_an_id = leaf.path in {("user_id",), ("device_id",)}
    return at_an_id and leaf.theirs == "" and leaf.ours is ABSENT


def _is_number_of_a_group(leaf: Leaf) -> bool:
    in_groups = leaf.path[:1] == ("groups",) or leaf.case.kind == "set_group"
    return in_groups and isinstance(leaf.theirs, int) and leaf.ours == str(leaf.theirs)


CLASSES: Final = {
    "a null": Difference(
        "null says that a property has no value, which is not the same as no property",
        _is_null,
    ),
    "a long text": Difference(
        "texts are sent whole unless `truncate_strings` is set, and ids always",
        _is_cut,
    ),
    "more than 1,024 keys": Difference(
        "the other SDK sends `{}` in their place", _has_many_keys
    ),
    "a value that is no JSON": Difference(
        "it is sent in its JSON form, or loses its own key: the other SDK leaves out "
        "the whole dictionary",
        _costs_the_dictionary,
    ),
    "an operation with such a value": Difference(
        "likewise: the other SDK ignores the operation, and takes a later one on the "
        "same property",
        _is_refused_operation,
    ),
    "a whole number as an amount or a place": Difference(
        "2 is a number like 2.0: the other SDK leaves the field out", _is_whole_number
    ),
    "a whole number as the price of a sale": Difference(
        "the same, where the other SDK does not send the sale", _is_whole_price
    ),
    "a user id that is a number or a UUID": Difference(
        "it becomes text: the other SDK leaves it out, and the event with it where "
        "there is no device",
        _is_id_of_another_type,
    ),
    "an empty id": Difference("it names nobody, and is left out", _is_empty_id),
    "a group name that is a number": Difference(
        "Amplitude's documentation has text only", _is_number_of_a_group
    ),
}


# --- The runs ---

RUNS: Final[dict[str, Json]] = {
    "plain": {},
    "planned": {"plan": PLAN, "ingestion_metadata": METADATA},
    "short ids": {"min_id_length": 1},
}


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Let neither SDK log what it does to bad values: a failure is read by people."""
    for name in ("amplitude", "amplitude_async"):
        caplog.set_level(logging.CRITICAL + 1, logger=name)


def events_of(recorder: Recorder, config: Json) -> dict[str, Json]:
    """Give what arrived by the number in it, after looking at what is round it."""
    events: dict[str, Json] = {}
    for path, body in recorder.take():
        assert path == "/2/httpapi"
        assert body["api_key"] == "key"
        wanted = config.get("min_id_length")
        assert body.get("options") == (wanted and {"min_id_length": wanted})
        for event in body["events"]:
            number = number_of(event)
            assert number not in events
            events[number] = neutral(event)
    return events


def number_of(event: Json) -> str:
    """Read the number of the call out of any id of an event."""
    ids = (event.get("insert_id"), event.get("device_id"), event.get("user_id"))
    names = (*ids, *event.get("groups", {}).values())
    return next(
        (
            name.partition("#")[2]
            for name in names
            if isinstance(name, str) and "#" in name
        ),
        str(event.get("user_id")),
    )


def neutral(event: Json) -> Json:
    """Take away what differs each time, once it is known to be there."""
    event = dict(event)
    assert event.pop("library").startswith("amplitude-")
    if "#" not in event["insert_id"]:
        assert event.pop("insert_id")
    if not FIRST_MS <= event["time"] < FIRST_MS + 10**11:
        assert isinstance(event.pop("time"), int)
    return event


async def test_the_events_are_those_of_the_official_sdk(
    recorder: Recorder, seed: int, events_wanted: int
) -> None:
    """Clean data is the same JSON; what differs is of a class with a reason."""
    leaves: list[Leaf] = []
    compared = 0
    for name, config in RUNS.items():
        dice = Dice(f"{seed} {name}")
        cases = [dice.case(n) for n in range(1, events_wanted // len(RUNS) * 6 // 5)]
        url = f"{recorder.url}/2/httpapi"
        await asyncio.to_thread(send_official, cases, url, config)
        theirs = events_of(recorder, config)
        await send_ours(cases, url, config)
        ours = events_of(recorder, config)
        compared += len(theirs.keys() & ours.keys())
        for case in cases:
            number = str(case.number)
            leaves += compare(
                case, theirs.get(number, ABSENT), ours.get(number, ABSENT)
            )

    sort_out(leaves, CLASSES, seed=seed, events=events_wanted)
    assert compared >= events_wanted


def test_the_page_gives_the_reason_of_each_class() -> None:
    """The documentation lists the same classes with the same reasons."""
    told = {name: one.reason for name, one in CLASSES.items()}
    assert table_of("Amplitude") == told
