"""A key as it is stored: its status at a moment, its claims, what replaces it, and queries."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastapi_guard.api_key.key import (
    ANY,
    COLUMNS,
    KeyQuery,
    StoredKey,
    earlier,
    fits,
    later,
    optional_text,
    text,
    unknown_key,
)
from fastapi_guard.claims import Subject
from fastapi_guard.exceptions import KeyNotFound

CREATED = datetime(2030, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
EXPIRES = CREATED + timedelta(days=30)
SECOND = timedelta(seconds=1)


def key(**fields: Any) -> StoredKey:
    """Return a key."""
    plain: dict[str, Any] = {
        "key_id": "0123456789abcdef",
        "user_id": "ada",
        "scopes": ["a:b", "c:d"],
        "metadata": {"team": ["x"]},
        "allowed_networks": [],
        "allowed_origins": [],
        "usage_id": "0123456789abcdef",
        "created_at": CREATED,
    }
    return StoredKey(**{**plain, **fields})


def test_the_status() -> None:
    """A key is active until the moment of its expiry; revoked comes before expired, and expired before paused."""
    active = key(expires_at=EXPIRES)
    assert active.status(EXPIRES - timedelta(microseconds=1)) == "active"
    assert active.status(EXPIRES) == "expired"
    assert key().status(datetime.max.replace(tzinfo=UTC)) == "active"
    paused = key(expires_at=EXPIRES, paused_at=CREATED)
    assert [paused.status(CREATED), paused.status(EXPIRES)] == ["paused", "expired"]
    revoked = key(expires_at=EXPIRES, paused_at=CREATED, revoked_at=CREATED)
    assert [revoked.status(CREATED), revoked.status(EXPIRES)] == ["revoked", "revoked"]


def test_the_claims() -> None:
    """They name the key, the owner and the rights; what is absent is left out or null, as documented."""
    claims = {
        "sub": "ada",
        "subject_type": "user",
        "key_id": "0123456789abcdef",
        "name": "",
        "scope": "a:b c:d",
        "tenant_id": None,
        "is_admin": False,
        "iat": int(CREATED.timestamp()),
        "metadata": {"team": ["x"]},
    }
    assert key().claims() == claims
    more: dict[str, Any] = {"name": "CI", "tenant_id": "t", "is_admin": True, "environment": "live"}
    full = key(**more, issuer="https://id.example", subject_type="robot", expires_at=EXPIRES)
    assert full.claims() == {
        **claims,
        **more,
        "subject_type": "robot",
        "iss": "https://id.example",
        "exp": int(EXPIRES.timestamp()),
    }


def test_claims_are_a_copy() -> None:
    """An application that changes the metadata in the claims changes no key."""
    stored = key()
    stored.claims()["metadata"]["team"].append("y")
    assert stored.metadata == {"team": ["x"]}


def test_the_owner_and_the_maker() -> None:
    """The owner has an issuer, or none; a maker is known or not."""
    assert key().owner == Subject(None, "ada")
    assert key(issuer="https://id.example").owner == Subject("https://id.example", "ada")
    assert key().maker is None
    assert key(maker_issuer="https://id.example").maker is None
    assert key(maker_id="bob", maker_issuer="https://id.example").maker == Subject("https://id.example", "bob")


@pytest.mark.parametrize(("limits", "limited"), [({}, False), ({"rate": "1/day"}, True), ({"quota": 0}, True)])
def test_limits(limits: dict[str, Any], *, limited: bool) -> None:
    """A key with a rate or a quota is counted."""
    assert key(**limits).is_limited is limited


def test_a_row() -> None:
    """A row has every column; one from before a column was added has null there."""
    values = {name: getattr(key(expires_at=EXPIRES), name) for name in COLUMNS}
    assert StoredKey.of_row(list(values.values())) == key(expires_at=EXPIRES)
    old = {**values, "usage_id": None, "allowed_networks": None, "allowed_origins": None}
    found = StoredKey.of_row(list(old.values()))
    assert (found.usage_id, found.allowed_networks, found.allowed_origins) == (found.key_id, [], [])
    restricted = {**values, "usage_id": "another", "allowed_networks": ["::/0"], "allowed_origins": ["https://a"]}
    found = StoredKey.of_row(list(restricted.values()))
    assert (found.usage_id, found.allowed_networks, found.allowed_origins) == ("another", ["::/0"], ["https://a"])
    with pytest.raises(ValueError, match="shorter"):
        StoredKey.of_row(list(values.values())[:-1])


def row_with(**fields: Any) -> list[Any]:
    """Return a row with other values in these columns."""
    return list({**{name: getattr(key(), name) for name in COLUMNS}, **fields}.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quota": "5"}, "a column has another type"),
        ({"quota": 1.5}, "a column has another type"),
        ({"quota_seconds": "60"}, "a column has another type"),
        ({"quota_seconds": 0}, "a column has another type"),
        ({"quota_seconds": -1}, "a column has another type"),
        ({"allowed_networks": "::/0"}, "networks and origins are lists of texts"),
        ({"allowed_origins": ["https://a", 1]}, "networks and origins are lists of texts"),
    ],
)
def test_a_row_whose_restrictions_are_damaged(fields: dict[str, Any], message: str) -> None:
    """Without a restriction the key could be used from anywhere, or without end: the row is an error."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        StoredKey.of_row(row_with(**fields))


def test_a_row_at_the_bounds_of_its_limits() -> None:
    """A quota may be 0, and the shortest period is a second."""
    found = StoredKey.of_row(row_with(quota=0, quota_seconds=1))
    assert (found.quota, found.quota_seconds) == (0, 1)


def test_a_row_that_was_edited_by_hand() -> None:
    """Scopes and metadata of another type grant nothing, and no other number than 1 is a mark."""
    for scopes, granted in (("a:b", []), (None, []), (["a:b", 1], ["a:b"])):
        assert StoredKey.of_row(row_with(scopes=scopes)).scopes == granted
    for metadata in (None, [], "text"):
        assert StoredKey.of_row(row_with(metadata=metadata)).metadata == {}
    for mark, expected in ((1, True), (True, True), (0, False), (False, False), (2, False), (None, False)):
        found = StoredKey.of_row(row_with(is_admin=mark, outlives_maker=mark))
        assert (found.is_admin, found.outlives_maker) == (expected, expected)


def test_the_key_that_replaces_it() -> None:
    """It expires after the same lifetime, or never; a moment that no datetime has is the last one."""
    now = CREATED + timedelta(days=7)
    assert key(expires_at=EXPIRES).renewed(now) == now + timedelta(days=30)
    assert key().renewed(now) is None
    assert key(expires_at=datetime.max.replace(tzinfo=UTC)).renewed(now) == datetime.max.replace(tzinfo=UTC)


def test_moments() -> None:
    """A duration counts from a moment, and stops at the first and the last that there are."""
    assert later(CREATED, SECOND) == CREATED + SECOND
    assert later(CREATED, timedelta.max) == datetime.max.replace(tzinfo=UTC)
    assert earlier(CREATED, SECOND) == CREATED - SECOND
    assert earlier(CREATED, timedelta()) == CREATED
    assert earlier(CREATED, timedelta.max) == datetime.min.replace(tzinfo=UTC)
    with pytest.raises(ValueError, match=r"^how long ago cannot be negative$"):
        earlier(CREATED, -timedelta(microseconds=1))


@pytest.mark.parametrize("page", [{"limit": -1}, {"offset": -1}, {"limit": 5, "offset": -1}])
def test_a_negative_page(page: dict[str, int]) -> None:
    """A page cannot be negative; an empty one can."""
    with pytest.raises(ValueError, match="cannot be negative") as error:
        KeyQuery(**page)
    numbers = f"{page.get('limit')}, {page.get('offset', 0)}"
    assert str(error.value) == f"limit and offset count keys, so they cannot be negative: {numbers}"
    assert KeyQuery(limit=0, offset=0)


def test_the_comparisons_of_a_query() -> None:
    """A filter of `None` is left out for what every key has, and means absent for what a key may have."""
    assert KeyQuery().equals() == {}
    assert KeyQuery(user_id=None, subject_type=None, issuer=ANY).equals() == {}
    assert KeyQuery(issuer=None, tenant_id=None, environment=None).equals() == dict.fromkeys(
        ("issuer", "tenant_id", "environment")
    )
    texts: dict[str, Any] = {name: name for name in ("user_id", "subject_type", "issuer", "tenant_id", "environment")}
    assert KeyQuery(**texts).equals() == texts
    for name in texts:
        with pytest.raises(ValueError, match=f"^{name} is a text of at most 255 characters"):
            KeyQuery(**{name: "\0"}).equals()


@pytest.mark.parametrize("value", ["x" * 256, "a\n", "\x7f", "\u2028", "\ud800", None, 7, b"x"])
def test_a_text_that_fits_no_column(value: Any) -> None:
    """A text has at most 255 characters, none of them a control character; the error does not repeat it."""
    assert not fits(value)
    with pytest.raises(ValueError, match=r"^name is a text") as error:
        text("name", value)
    assert str(error.value) == (
        "name is a text of at most 255 characters without control characters, such as str(user.id)"
    )


def test_texts_that_fit() -> None:
    """The empty text fits, and one of 255 characters; where a text is optional, so does its absence."""
    for value in ("", "x" * 255, "ü \U0001f511"):
        assert text("name", value) == optional_text("name", value) == value
    assert optional_text("name", None) is None


def test_an_unknown_key() -> None:
    """The error names an id, and never a whole key that was pasted."""
    error = unknown_key("0123456789abcdef")
    assert isinstance(error, KeyNotFound)
    assert "there is no API key with the id 0123456789abcdef" in str(error)
    assert unknown_key("sk-0123456789abcdef-secret").args == (
        "that is not the id of an API key: an id is the 16 letters and digits before the last hyphen",
    )
