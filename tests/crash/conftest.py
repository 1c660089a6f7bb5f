"""The image that most tests damage is written once."""

import pytest
import trio

from crash.images import Image, kill_image


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return trio.run(kill_image, tmp_path_factory.mktemp("killed"))
