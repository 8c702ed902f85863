"""What is taken out of a text, what stays, and what shows nothing of itself."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplitude_async.delivery.answer import describe_fault
from amplitude_async.redaction import (
    MASK,
    Body,
    MaskedText,
    Redactor,
    masked_url,
    seal,
    without_ids,
    without_values,
)

__all__: list[str] = []

GONE = "(hidden)"
SECRET = 'sec/ret+"<&>\\key='


@given(st.text(min_size=8), st.text(), st.text())
def test_a_secret_is_found_in_every_way_of_writing_json(
    secret: str, before: str, after: str
) -> None:
    """Plain, escaped or not, a body holds it no more, and is JSON still."""
    redact = Redactor([secret])
    for ascii_only in (True, False):
        text = json.dumps({"error": before + secret + after}, ensure_ascii=ascii_only)
        clean = redact.body(text.encode("utf-8", "replace"))
        told = json.loads(clean)["error"]
        assert secret not in told or secret in MASK


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        "sec%2Fret%2B%22%3C%26%3E%5Ckey%3D",
        "sec/ret+&quot;&lt;&amp;&gt;\\key=",
        json.dumps(SECRET),
        "https://user:pass@host/path",
        "http://user:pa@ss:word@host:80/",
        "Basic YWJjOmRlZjEyMw==",
        "authorization: bearer abc.DEF-123_x",
    ],
)
def test_what_is_a_secret_goes(written: str) -> None:
    """As a server may write it, or as any text of the kind looks."""
    clean = Redactor([SECRET])(f"before {written} after")

    assert written not in clean
    assert clean.startswith("before ")
    assert clean.endswith(" after")


@pytest.mark.parametrize(
    "text",
    [
        "api_key holds a colon, where Basic authentication ends it: check it",
        "mail me@example.com, see https://example.com/a?b=c",
        "a bearer certificate",
        "HTTP 400: Invalid API key: deadbeef",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    """Prose about credentials is no credential."""
    assert Redactor(["another-secret"])(text) == text
    assert Redactor().body(text.encode()) == text.encode()


def test_a_password_of_two_letters_garbles_no_text() -> None:
    """Taken out of every text it would hide the cause; of an address it goes."""
    redact = Redactor().knowing(["me", "hush"])
    assert redact("some http://me:me@host hush") == f"some http://host {MASK}"


def test_a_body_that_is_no_json_or_deep_is_cleaned_as_it_is() -> None:
    """A backslash alone makes no JSON."""
    redact = Redactor(["secret-key"])
    assert redact.body(b"\\ secret-key \xff") == f"\\ {MASK} \ufffd".encode()
    assert redact.body(b"[" * 100_000 + b"\\") == b"[" * 100_000 + b"\\"


def test_masked_text_works_and_shows_nothing() -> None:
    """Equal, joined, formatted, cut and copied: what is printed of it is a mask."""
    text = MaskedText("secret")
    assert text == "secret"
    assert f"{text}" == "secret"
    assert hash(text) == hash("secret")
    pickled = pickle.loads(pickle.dumps(text))  # noqa: S301
    for shown in (text, text[:3], copy.deepcopy(text), pickled):
        assert repr(shown) == repr(MASK)
    assert repr(MaskedText.__new__(MaskedText)) == repr(MASK)


def test_a_body_works_and_shows_its_size() -> None:
    """Cut, too: whoever prints the start of long values prints no key."""
    body = Body(b'{"api_key":"secret"}')
    assert body == b'{"api_key":"secret"}'
    assert repr(body) == "<20 bytes>"
    assert repr(body[:5]) == "<5 bytes>"
    assert body[0] == ord("{")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/path", "http://host/path"),
        ("http://host/path?token=secret", f"http://host/path?{MASK}"),
        ("http://host/path#secret", f"http://host/path?{MASK}"),
        ("http://me:secret@host/path", "http://host/path"),
        ("ftp://me:sec@ret@host", "ftp://host"),
        ("http://me:sec/ret@host", "http://host"),
        ("me:secret@host", "host"),
        ("//me:secret@host/path", "//host/path"),
        ("http://me:sec?ret@host", MASK),
        ("no address", "no address"),
    ],
)
def test_an_address_shows_where_it_leads(url: str, shown: str) -> None:
    """Not as whom, and not with what."""
    assert masked_url(url) == url
    assert repr(masked_url(url)) == repr(shown)


def test_sealing_reaches_what_is_inside() -> None:
    """Lists, tuples and mappings; what is no text stays as it is."""
    value = {"a": ["secret", b"secret"], "b": ("secret", 1), "c": None}
    assert seal(value) == value
    assert "secret" not in repr(seal(value))


@pytest.mark.parametrize(
    ("message", "logged"),
    [
        ("user_id '42' has 2 characters", "user_id (hidden) has 2 characters"),
        ("a='it\\'s' and \"x\": no", "a=(hidden)"),
        ("price={'a': None, 'b': 4.5}: Input should", f"price={GONE}: Input should"),
        (
            "a=1: Is no text; b=[2]: Is no int",
            f"a={GONE}: Is no text; b={GONE}: Is no int",
        ),
        ("user_id='cut off in the mid", "user_id=(hidden)"),
        ("the server's word, the event's id", "the server's word, the event's id"),
        ("set min_id_length=1", "set min_id_length=1"),
        ("[input_value=17, input_type=int]", f"[input_value={GONE}, input_type=int]"),
        (
            "[input_value=[[1], 4711, 12], input_type=list]",
            f"[input_value={GONE}, input_type=list]",
        ),
        ("[input_value=[[1], 4711, 1", f"[input_value={GONE}"),
    ],
)
def test_values_are_hidden_from_a_log(message: str, logged: str) -> None:
    """Names, remedies and prose stay."""
    assert without_values(message) == logged


def test_ids_are_hidden_from_a_log() -> None:
    """As words of their own; numbers such as 42 are everywhere."""
    text = "user-1, (user-10) and 'user-1': 42 of 429"
    clean = without_ids(text, ["user-1", "42", None])
    assert clean == "(hidden), (user-10) and '(hidden)': 42 of 429"


def test_a_long_word_from_a_server_is_looked_through_once() -> None:
    """What aiohttp quotes of an answer may be one word; squared, it takes minutes."""
    told = describe_fault(ValueError("a" * 300_000 + "://user:secret@host/path"))
    assert told.startswith("ValueError: aaa")
    assert (
        describe_fault(ValueError("http://u:p@host/x?y")) == "ValueError: http://host"
    )
