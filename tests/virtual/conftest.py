"""What all tests in virtual time do without."""

import ssl
from collections.abc import Iterator
from unittest.mock import patch

import pytest


@pytest.fixture(autouse=True, scope="module")
def no_certificates() -> Iterator[None]:
    """No authority is trusted: nothing here goes over TLS, and reading a hundred certificates takes long."""
    with patch("ssl.create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
        yield
