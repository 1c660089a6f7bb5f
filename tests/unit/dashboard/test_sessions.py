"""Sessions as the cookie tells them: whose they are, how long they last, and what of them cannot be made up."""

import random

import pytest

from taskd_dashboard.sessions import CODE_MS, CODES_MAX, IDLE_MS, LIFE_MS, Sessions

NOW = 1_800_000_000_000
SECRET = bytes(range(32))


def sessions(secret: bytes = SECRET, seed: int = 0) -> Sessions:
    return Sessions(secret, random.Random(seed).randbytes)


def test_a_cookie_is_read_back_by_the_next_server_too() -> None:
    """Over the same data directory: an open page goes on after a restart."""
    before = sessions()
    session = before.open("abc", NOW)
    cookie = before.write(session, NOW)
    after = sessions(seed=1)
    assert after.name == before.name
    assert after.read(cookie, NOW + 1) == session
    assert after.is_csrf(session, before.csrf(session))


def test_another_server_knows_neither_cookie_nor_name() -> None:
    """Two on one machine share a browser's jar: neither overwrites, or believes, what is the other's."""
    ours, theirs = sessions(), sessions(b"x" * 32)
    assert ours.name != theirs.name
    assert theirs.read(ours.write(ours.open("abc", NOW), NOW), NOW) is None


def test_each_login_has_an_id_of_its_own() -> None:
    """What was known before a login, such as an id that somebody else set, is worth nothing after it."""
    of = sessions()
    first, second = of.open("abc", NOW), of.open("abc", NOW)
    assert first.session_id != second.session_id
    assert of.csrf(first) != of.csrf(second)
    assert not of.is_csrf(second, of.csrf(first))


@pytest.mark.parametrize(
    ("unused_ms", "is_there"), [(0, True), (IDLE_MS - 1, True), (IDLE_MS, False), (LIFE_MS, False)]
)
def test_a_session_ends_half_an_hour_after_its_last_use(unused_ms: int, *, is_there: bool) -> None:
    """Not a moment later."""
    of = sessions()
    cookie = of.write(of.open("abc", NOW), NOW)
    assert (of.read(cookie, NOW + unused_ms) is not None) == is_there


def test_a_session_that_is_always_used_ends_after_half_a_day() -> None:
    """A cookie that was stolen is good no longer than that."""
    of, now = sessions(), NOW
    cookie = of.write(of.open("abc", NOW), NOW)
    while (session := of.read(cookie, now)) is not None:
        now += IDLE_MS // 2
        cookie = of.write(session, now)
    assert now == NOW + LIFE_MS


def test_nothing_of_a_cookie_can_be_changed() -> None:
    """Every character counts."""
    of = sessions()
    cookie = of.write(of.open("abc", NOW), NOW)
    for at, letter in enumerate(cookie):
        other = "A" if letter != "A" else "B"
        assert of.read(cookie[:at] + other + cookie[at + 1 :], NOW) is None, at


@pytest.mark.parametrize("cookie", ["", "....", "a.b.c.d.e", "a" * 10_000, "ä.b.1.2.c", "a.b.1.2." + "A" * 43])
def test_nonsense_is_nobody(cookie: str) -> None:
    """And does no harm."""
    assert sessions().read(cookie, NOW) is None


def test_a_code_is_good_once_and_for_some_minutes() -> None:
    """Whoever is first, then nobody."""
    of = sessions()
    code, late = of.make_code("abc", NOW), of.make_code("abc", NOW)
    assert of.use_code(code, NOW + CODE_MS - 1) == "abc"
    assert of.use_code(code, NOW) is None
    assert of.use_code(late, NOW + CODE_MS) is None
    assert of.use_code("", NOW) is None


def test_codes_are_bounded() -> None:
    """The oldest that was not used gives way."""
    of = sessions()
    codes = [of.make_code("abc", NOW) for _ in range(CODES_MAX + 1)]
    assert of.use_code(codes[0], NOW) is None
    assert of.use_code(codes[1], NOW) == "abc"
