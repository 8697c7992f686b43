"""A sample of the soak: after threads, errors, chats and asyncio nothing is held, or locked."""

import io
import random

import pytest

import edgellm
from stress.soak import chat_once, held, soak

pytestmark = pytest.mark.slow


def test_threads_and_chats_leave_a_model_as_it_was():
    with edgellm.load("stories", memory="500MB", threads=1) as llm:
        expected = llm.generate("Once", max_tokens=8).text
        chat_once(llm, random.Random(0))
        before = held()
        soak(llm, threads=8, seconds=1.5, chats=5, interval=0.5, out=io.StringIO())
        assert held()[1:] == before[1:]
        assert llm.generate("Once", max_tokens=8).text == expected
