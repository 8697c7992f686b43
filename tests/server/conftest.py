"""The bundled model behind a server of this process."""

import pytest
from support.served import served

import edgellm


@pytest.fixture(scope="package")
def stories():
    with edgellm.load("stories") as llm:
        yield llm


@pytest.fixture(scope="package")
def client(stories):
    with served(stories, name="stories") as client:
        yield client
