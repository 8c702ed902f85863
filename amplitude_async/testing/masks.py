"""What a recording must not hold: keys that are masked by rule."""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from pydantic_core import from_json

from amplitude_async.redaction import Redactor

__all__ = ["PERSONAL", "Mask", "looks_personal"]

PERSONAL: Final = (
    # secrets
    "access_key",
    "api_key",
    "auth",
    "authorization",
    "client_secret",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "csrf",
    "jwt",
    "otp",
    "passwd",
    "passphrase",
    "password",
    "passwords",
    "private_key",
    "pwd",
    "receipt",
    "receipt_sig",
    "secret",
    "secrets",
    "session_token",
    "signature",
    "ssh_key",
    "token",
    # persons
    "birth_date",
    "birthday",
    "date_of_birth",
    "dob",
    "email",
    "emails",
    "e_mail",
    "family_name",
    "first_name",
    "full_name",
    "given_name",
    "last_name",
    "maiden_name",
    "middle_name",
    "mobile",
    "mobile_number",
    "nickname",
    "phone",
    "phone_number",
    "phones",
    "surname",
    "telephone",
    "user_name",
    "username",
    # papers and money
    "account_number",
    "card_number",
    "credit_card",
    "cvc",
    "cvv",
    "iban",
    "passport",
    "social_security_number",
    "ssn",
    "tax_id",
    # places
    "address",
    "addresses",
    "ip",
    "lat",
    "latitude",
    "lng",
    "location_lat",
    "location_lng",
    "lon",
    "longitude",
    "postal_code",
    "postcode",
    "street",
    "zip",
    "zip_code",
    # devices that advertisers know
    "adid",
    "advertising_id",
    "android_app_set_id",
    "android_id",
    "android_uuid",
    "idfa",
    "idfv",
    "imei",
    "mac",
)
"""Keys whose values are masked, in any spelling: ``apiKey``, ``user_email``.

A key is masked where its last words are those of one of these. ``name`` alone is not
among them, since products have names too.
"""

# Each is a person's account with somebody, but for what says whose the events are.
_IDENTITIES: Final = "user_identities"
_WHO: Final = frozenset({"customer_id", "other"})
# What begins so is no better: "password_hash", "email_2".
_BEGINNINGS: Final = frozenset({"email", "password", "phone", "secret"})

# Numbers tell apart what is of one kind: "phone_number_2".
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# Bounded on both sides, so that a long text takes no longer than its length.
_EMAIL: Final = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
# In the query of an address, say.
_ASSIGNED: Final = re.compile(r"(?<![\w-])([\w-]{1,64})=([^\s&#;,'\"<>]+)")
_LONGEST_KEY: Final = 200
_MOST_WORDS: Final = 4


@dataclass(frozen=True)
class Mask:
    """Says what is masked in a recording.

    ``Mask(keys=(*PERSONAL, "order_note"))`` extends the rule, and ``Mask(keys=())``
    leaves nothing but addresses of mail and credentials inside texts masked.
    """

    keys: tuple[str, ...] = PERSONAL
    """Keys whose values are masked, at any depth and in any spelling."""

    keep: frozenset[str] = frozenset()
    """Keys that are left as they are."""

    pseudonyms: bool = False
    """Whether users and devices are called ``user-1``, ``device-1`` and so on.

    A person is the same in the whole file, and in the next one that is recorded of the
    same events, whatever their ids are then.
    """

    _redactor: Redactor = field(default_factory=Redactor, repr=False, compare=False)

    @classmethod
    def of(cls, more: "Mask | Iterable[str]", keep: Iterable[str] = ()) -> "Mask":
        """Give a mask, or make one of further keys."""
        if isinstance(more, Mask):
            return more.keeping(keep)
        return cls(keys=(*PERSONAL, *_names(more)), keep=frozenset(_names(keep)))

    def keeping(self, keep: Iterable[str]) -> "Mask":
        """Make one that leaves further keys as they are."""
        kept = self.keep | frozenset(_names(keep))
        return self if kept == self.keep else Mask(self.keys, kept, self.pseudonyms)

    def hides(self, key: str) -> bool:
        """Say whether the value of a key is masked."""
        if key in self.keep:
            return False
        if key not in self._known:
            self._known[key] = self._judged(key)
        return self._known[key]

    def masked(self, value: Any) -> Any:
        """Copy a JSON value with what is masked taken out."""
        if isinstance(value, str):
            return self._of_text(value)
        if isinstance(value, list):
            return [self.masked(item) for item in value]
        if isinstance(value, dict):
            return {
                _without_mail(key): self._of_key(key, item)
                for key, item in value.items()
            }
        return value

    def _of_text(self, value: str) -> str:
        # mParticle has no lists and objects in attributes: they are sent as JSON text.
        if value[:1] in {"[", "{"}:
            with suppress(ValueError):
                tree = from_json(value)
                if (made := self.masked(tree)) != tree:
                    return json.dumps(made, ensure_ascii=False)
        text = self._redactor(value)
        if "=" in text:
            text = _ASSIGNED.sub(self._of_assignment, text)
        return _without_mail(text)

    def _of_assignment(self, found: re.Match[str]) -> str:
        name = found[1]
        return f"{name}=<{name}>" if self.hides(name) else found[0]

    def _of_key(self, key: str, value: Any) -> Any:
        # Whether there is one says nothing of the person.
        if value is None or isinstance(value, bool) or key in self.keep:
            return value
        if self.hides(key):
            return f"<{key}>"
        if key == _IDENTITIES and isinstance(value, dict):
            return {
                k: self.masked(v) if k in _WHO | self.keep else f"<{k}>"
                for k, v in value.items()
            }
        return self.masked(value)

    @cached_property
    def _known(self) -> dict[str, bool]:
        return {}

    @cached_property
    def _rules(self) -> frozenset[str]:
        return frozenset("".join(_words(key)) for key in self.keys)

    def _judged(self, key: str) -> bool:
        words = _words(key[:_LONGEST_KEY])
        # Whether it was written as one word, as in "apikey", makes no difference.
        endings = ("".join(words[-count:]) for count in range(1, _MOST_WORDS + 1))
        begins = words and words[0] in _BEGINNINGS & self._rules
        return bool(begins) or any(ending in self._rules for ending in endings)


def _without_mail(text: str) -> str:
    return _EMAIL.sub("<email>", text) if "@" in text else text


def _words(key: str) -> tuple[str, ...]:
    words = [word.lower() for word in _WORDS.findall(key)]
    return tuple(words) or (key.casefold(),)


def _names(given: Iterable[str]) -> tuple[str, ...]:
    """Take one name for what it is, and not for its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def looks_personal(value: str) -> bool:
    """Say whether an id is an address of mail."""
    return "@" in value and _EMAIL.search(value) is not None
