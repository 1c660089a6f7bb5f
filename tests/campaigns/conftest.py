"""Campaigns take minutes: they are begun before the first test, and looked at after the last."""

import pytest

from campaigns.background import Background, campaign_of

BACKGROUND = pytest.StashKey[Background]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: campaign_of(item) is not None)


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly:
        session.stash[BACKGROUND] = Background(filter(None, map(campaign_of, session.items)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    background = session.stash.get(BACKGROUND, None)
    if background is not None:
        background.close()


@pytest.fixture
def background(request: pytest.FixtureRequest) -> Background:
    """What plays the campaigns that were asked for."""
    return request.session.stash[BACKGROUND]
