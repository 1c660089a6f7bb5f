"""What simulations share."""

import pytest

from taskd.server.certificates import Certificates, open_certificates
from taskd.server.clock import SystemClock


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A server's certificates, which nobody renews."""
    return open_certificates(tmp_path_factory.mktemp("certificates"), ["localhost"], SystemClock().wall_ms())
