"""Recordings: what is written, what is not, and how a difference reads."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import Identify
from amplitude_async.mparticle import Batch, CustomEvent, UserIdentities
from amplitude_async.testing import PERSONAL, CapturedEvents, Mask
from amplitude_async.testing.records import write_recording
from tests.testing.conftest import Captor

__all__: list[str] = []

pytestmark = pytest.mark.allow_blocking


def rows_in(path: Path) -> list[dict[str, Any]]:
    """Return what stands in a recording."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def recorded(path: Path, *tracked: tuple[str, dict[str, Any]], **options: Any) -> None:
    """Record events of their names and fields."""
    captured(*tracked).write(path, **options)


def captured(*tracked: tuple[str, dict[str, Any]]) -> CapturedEvents:
    """Return a collection of events of their names and fields."""
    events = CapturedEvents()
    captor = Captor(events)
    for name, fields in tracked:
        captor.track(name, **fields)
    return events


def paid(total: float, user: str = "user-1", **more: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the fields of an event."""
    return "Paid", {"user_id": user, "event_properties": {"total": total, **more}}


def difference(events: CapturedEvents, path: Path, **options: Any) -> list[str]:
    """Return the lines of the message that events differ from a recording."""
    with pytest.raises(AssertionError) as caught:
        events.assert_recorded(path, **options)
    lines = str(caught.value).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 240
    assert "record anew" in lines[-1]
    return lines


def test_a_recording_is_one_line_for_each_event(tmp_path: Path) -> None:
    """Keys are sorted, and each run writes the same bytes."""
    path, again = tmp_path / "made" / "first.ndjson", tmp_path / "second.ndjson"
    for target in (path, again):
        recorded(target, paid(9.5), ("Left", {"device_id": "device-1"}), paid(7))

    assert path.read_bytes() == again.read_bytes()
    assert path.read_text(encoding="utf-8").splitlines()[0] == (
        '{"device_id": "device-1", "event_type": "Left", "insert_id": "<insert_id>", '
        '"library": "<library>", "time": "<time>"}'
    )
    assert [row["event_type"] for row in rows_in(path)] == ["Left", "Paid", "Paid"]
    assert [entry.name for entry in path.parent.iterdir()] == ["first.ndjson"]
    captured(paid(9.5), ("Left", {"device_id": "device-1"}), paid(7)).assert_recorded(
        path
    )


def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording is there as a whole or not at all."""
    path = tmp_path / "events.ndjson"
    recorded(path, paid(9.5))
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        recorded(path, paid(8))

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_differs_is_told_by_identity(tmp_path: Path) -> None:
    """Missing, new and changed events, with the field that changed."""
    path = tmp_path / "events.ndjson"
    recorded(
        path,
        paid(9.5, order="o-1", gone=1),
        ("Left", {"user_id": "user-1"}),
        paid(1, user="user-2"),
        paid(1, user="user-3"),
    )
    events = captured(
        paid(9.0, order="o-1", more=2),
        ("Came", {"user_id": "user-1"}),
        paid(1, user="user-2"),
        paid(1, user="user-4"),
    )

    lines = difference(events, path)
    assert "(4 recorded, 4 now)" in lines[0]
    assert lines[1:-1] == [
        "'user-1':",
        "  ~ changed: 'Paid' {'more': 2, 'order': 'o-1', 'total': 9.0}",
        "      event_properties.gone: was 1, is missing",
        "      event_properties.total: was 9.5, is 9.0",
        "      event_properties.more: new, is 2",
        "  - missing: 'Left'",
        "  + new: 'Came'",
        "'user-3':",
        "  - missing: 'Paid' {'total': 1}",
        "'user-4':",
        "  + new: 'Paid' {'total': 1}",
    ]


def test_the_order_of_an_identity_matters(tmp_path: Path) -> None:
    """Between identities there is none."""
    path = tmp_path / "events.ndjson"
    recorded(path, paid(1), paid(2), paid(1, user="user-2"))

    captured(paid(1, user="user-2"), paid(1), paid(2)).assert_recorded(path)
    difference(captured(paid(2), paid(1), paid(1, user="user-2")), path)
    difference(captured(paid(1.0), paid(2), paid(1, user="user-2")), path)


def test_no_recording_says_how_to_make_one(tmp_path: Path) -> None:
    """A test that runs for the first time names the remedy."""
    lines = difference(captured(paid(1)), tmp_path / "none.ndjson")
    assert lines[0].startswith("there is no recording")


SECRETS = {
    "email": "ann@example.org",
    "user_email": "x",
    "E-Mail": "x",
    "Phone": "x",
    "phoneNumber2": "x",
    "ip_address": "x",
    "billing_address": {"street": "x"},
    "first_name": "x",
    "lastName": "x",
    "LAT": 1.5,
    "lng": 2.5,
    "api_key": "x",
    "apiKey": "x",
    "APIKEY": "x",
    "X-Api-Key": "x",
    "accessToken": "x",
    "password": "x",
    "password_hash": "x",
    "clientSecret": "x",
    "Authorization": "x",
    "iban": ["x"],
    "zip": 8000,
}
HARMLESS = {
    "name": "Chair",
    "product_name": "Chair",
    "tokens": 100,
    "total": 9.5,
    "shipping": "fast",
    "latency": 3,
    "email_opened": True,
    "plan": None,
    "mailing": "weekly",
}


@pytest.mark.parametrize("vendor", ["amplitude", "mparticle"])
def test_secrets_and_persons_are_not_in_the_file(tmp_path: Path, vendor: str) -> None:
    """By the name of the key in any spelling, and by what texts look like."""
    path = tmp_path / "events.ndjson"
    events = CapturedEvents()
    captor = Captor(events)
    properties = {
        **SECRETS,
        **HARMLESS,
        "deep": [{"deeper": {"token": "hidden-text"}}],
        "note": "write to ann@example.org or https://ann:pass-1234@example.org/x",
        "header": "Bearer abcdefgh12345678",
    }
    captor.track(
        "Paid",
        vendor,
        user_id="user-1",
        ip="203.0.113.7",
        location_lat=1.25,
        location_lng=2.25,
        idfa="8b9f1c60-0b7c-4b3c-8a52-2d7a4d0f3f10",
        event_properties=properties,
        user_properties={"email": "bob@example.org"},
    )
    events.write(path)

    (row,) = rows_in(path)
    text = path.read_text(encoding="utf-8")
    for secret in ("@example.org", "203.0", "1.25", "2.25", "8b9f1c60", "abcdefgh"):
        assert secret not in text, secret
    assert "pass-1234" not in text
    data = row if vendor == "amplitude" else row["events"][0]["data"]
    name = "event_properties" if vendor == "amplitude" else "custom_attributes"
    found = data[name]
    assert {key: found[key] for key in SECRETS} == {key: f"<{key}>" for key in SECRETS}
    assert {key: found.get(key) for key in HARMLESS} == HARMLESS
    assert "hidden-text" not in text
    events.assert_recorded(path)


def test_identities_of_mparticle_are_masked(tmp_path: Path) -> None:
    """But for what says whose the events are."""
    path = tmp_path / "events.ndjson"
    events = CapturedEvents()
    identities = UserIdentities(
        customer_id="user-1", email="ann@example.org", google="g-1", facebook="f-1"
    )
    captor = Captor(events)
    captor.upload(
        Batch(
            environment="development",
            user_identities=identities,
            events=[
                CustomEvent(event_name="Paid", custom_attributes={"google": "ads"})
            ],
        )
    )
    events.write(path)

    (row,) = rows_in(path)
    assert row["user_identities"] == {
        "customer_id": "user-1",
        "email": "<email>",
        "google": "<google>",
        "facebook": "<facebook>",
    }
    assert row["events"][0]["data"]["custom_attributes"] == {"google": "ads"}


def test_the_rule_is_extended_and_replaced(tmp_path: Path) -> None:
    """By further keys, by keys to keep, or by a mask of one's own."""
    path = tmp_path / "events.ndjson"
    event = paid(9.5, order="o-1", email="x", city="Bern")

    def written(**options: Any) -> dict[str, Any]:
        recorded(path, event, **options)
        captured(event).assert_recorded(path, **options)
        (row,) = rows_in(path)
        properties: dict[str, Any] = row["event_properties"]
        return properties

    masked = {"total": 9.5, "order": "<order>", "email": "<email>", "city": "Bern"}
    assert written(mask="order") == masked
    assert written(mask=["order"], keep="order")["order"] == "o-1"
    assert written(keep=["email"])["email"] == "x"
    assert written(mask=Mask(keys=("city",)), keep="x")["email"] == "x"
    assert written(mask=Mask(keys=(*PERSONAL, "city")))["city"] == "<city>"
    recorded(path, event, keep=["time", "library"])
    assert rows_in(path)[0]["library"] == "amplitude-async/1.2.3"


def test_a_user_whose_id_is_an_address_gets_another_name(tmp_path: Path) -> None:
    """Events of two people stay those of two."""
    path = tmp_path / "events.ndjson"
    events = captured(
        paid(1, user="ann@example.org", by="ann@example.org"),
        paid(2, user="bob@example.org"),
        paid(3, user="user-x"),
    )
    events.write(path)

    rows = rows_in(path)
    assert [row["user_id"] for row in rows] == ["user-1", "user-2", "user-x"]
    assert rows[0]["event_properties"]["by"] == "user-1"
    assert "example.org" not in path.read_text(encoding="utf-8")
    events.assert_recorded(path)


def test_pseudonyms_do_not_depend_on_the_ids(tmp_path: Path) -> None:
    """Ids that are random in each run give one file."""
    path = tmp_path / "events.ndjson"

    def run(*users: str) -> CapturedEvents:
        events = CapturedEvents()
        captor = Captor(events)
        for number, user in enumerate(users):
            captor.track("Seen", user_id=user, device_id=f"device-of-{user}")
            captor.identify(Identify().set("rank", number), user_id=user)
        return events

    mask = Mask(pseudonyms=True)
    run("zoe-1", "ann-1", "max-1").write(path, mask=mask)

    rows = rows_in(path)
    assert {row["user_id"] for row in rows} == {"user-1", "user-2", "user-3"}
    assert {row["device_id"] for row in rows if "device_id" in row} == {
        "device-1",
        "device-2",
        "device-3",
    }
    run("ann-2", "zoe-2", "bob-2").assert_recorded(path, mask=mask)
    difference(run("ann-2", "zoe-2"), path, mask=mask)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"event_type":"a"}\nno json\n', "line 2 is no JSON"),
        (b'{"event_type":"a"}\n\n[1]\n', "line 3 is no JSON object"),
        (b'{"event_type":"a"', "line 1 is no JSON"),
        (b'{"event_type":"\xff"}', "line 1 is no JSON"),
        (b'{"n":NaN}', "line 1 is no JSON"),
        (b"[" * 10_000, "line 1 is no JSON"),
        (b'{"a":' * 10_000, "line 1 is no JSON"),
        (b"{}\n" * 100_001, "more than 100,000 lines"),
    ],
    ids=["text", "list", "torn", "bytes", "nan", "deep", "deeper", "long"],
)
def test_a_broken_recording_names_the_line(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    """The file comes from outside: it may hold anything."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=problem):
        captured(paid(1)).assert_recorded(path)


def test_what_is_no_file_or_too_large_is_not_read(tmp_path: Path) -> None:
    """Reading is bounded, and never waits."""
    with pytest.raises(ValueError, match="is no file"):
        captured().assert_recorded(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="is no file"):
        captured().assert_recorded(pipe)
    large = tmp_path / "large.ndjson"
    with large.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    with pytest.raises(ValueError, match="more than 67,108,864 bytes"):
        captured().assert_recorded(large)


def test_a_strange_recording_is_a_difference(tmp_path: Path) -> None:
    """Rows that no event could have are shown, without escapes."""
    path = tmp_path / "events.ndjson"
    path.write_text(
        '{"event_type": 7, "user_id": ["x"]}\n{}\n{"events": 1, "environment": 2}\n'
        '{"event_type": "\\u001b[31m%s", "user_id": "\\u001b{0}"}\n',
        encoding="utf-8",
    )

    assert "\x1b" not in "".join(difference(captured(paid(1)), path))


def test_many_differences_are_cut(tmp_path: Path) -> None:
    """Thousands of other events take a moment, and forty lines."""
    path = tmp_path / "events.ndjson"
    recorded(path, *[paid(number) for number in range(5_000)])

    lines = difference(captured(*[paid(-1 - n) for n in range(5_000)]), path)
    assert "more lines" in lines[-2]


@pytest.mark.timeout(60)  # each compared with each takes minutes
def test_events_of_no_common_name_are_compared_in_a_moment(tmp_path: Path) -> None:
    """Thousands that are missing, and thousands that are new."""
    path = tmp_path / "events.ndjson"
    recorded(path, *[(f"Old {n}", {"user_id": "user-1"}) for n in range(3_000)])

    lines = difference(
        captured(*[(f"New {n}", {"user_id": "user-1"}) for n in range(3_000)]), path
    )
    assert "missing: 'Old 0'" in lines[2]


def test_credentials_inside_texts_are_masked(
    events: CapturedEvents, captor: Captor, tmp_path: Path
) -> None:
    """In the query of an address above all; what is beside them stays."""
    secret, path = "s3cr3t-value", tmp_path / "events.ndjson"
    properties = {
        "page": f"https://shop.example/x?page=2&token={secret}&apiKey={secret}#top",
        "text": f"signed in with password={secret}; all is well",
        "cookies": secret,
        "passphrase": secret,
        "by": {"a.b@shop.example": 1},
    }
    captor.track("Seen", user_id="user-1", event_properties=properties)
    events.write(path)

    text = path.read_text("utf-8")
    assert secret not in text
    assert "a.b@shop.example" not in text
    assert "?page=2&token=<token>&apiKey=<apiKey>#top" in text
    events.assert_recorded(path)


def test_what_no_recording_may_hold_is_not_written(
    events: CapturedEvents, captor: Captor, tmp_path: Path
) -> None:
    """The test that would compare with it is told now, and not in its next run."""
    captor.track("Large", user_id="user-1", event_properties={"x": "y" * 900_000})
    many = list(events) * 80

    with pytest.raises(ValueError, match=r"80 events of .* record fewer events"):
        write_recording(tmp_path / "events.ndjson", many, Mask())
    assert list(tmp_path.iterdir()) == []
