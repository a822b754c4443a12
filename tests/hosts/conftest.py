"""One installation of the clients for all tests here; a scene, with everything that runs in it, for each."""

import os
import tempfile

import pytest

from hosts.clients import BASE, Scene, installed


@pytest.fixture(scope="session")
def clients():
    return installed()


@pytest.fixture
def scene(clients):
    BASE.mkdir(parents=True, exist_ok=True)
    made = Scene(tempfile.mkdtemp(prefix="scene-", dir=BASE), clients)
    os.environ.pop("RELAY_SHARED_ROOT", None)
    try:
        yield made
    finally:
        made.close()
