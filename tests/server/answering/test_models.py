"""Several models: loaded when asked for, within one budget, unloaded when nobody uses them."""

import asyncio

import pytest
from support.served import serving

from edgellm.server.answering.models import Models
from edgellm.server.http.api_error import ApiError
from edgellm.settings import LoadSettings

LOAD = LoadSettings(context=64, threads=1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    from support import tiny

    folders = {}
    for name in ("a", "b", "c"):
        folder = tmp_path_factory.mktemp("models") / name
        tiny.write_model(folder, tiny.CONFIGS["llama-3.2"])
        folders[name] = str(folder)
    return folders


def run(work, sources, **settings):
    async def main():
        models = Models(sources, load=LOAD, **settings)
        try:
            await work(models)
        finally:
            await models.aclose()

    asyncio.run(main())


def states(models):
    return {entry.name: entry.state for entry in models}


def size_of(sources):
    """The bytes that one of the models takes."""
    found = []

    async def work(models):
        await models.hold("a")
        found.append(next(iter(models)).memory)

    run(work, sources, memory=10**9)
    return found[0]


def test_a_hundred_first_requests_load_a_model_once(sources):
    async def work(models):
        held = await asyncio.gather(*(models.hold("a") for _ in range(100)))
        assert len({id(one) for one in held}) == 1
        assert states(models) == {"a": "loaded", "b": "unloaded", "c": "unloaded"}

    run(work, sources, memory=10**9)


def test_the_least_recently_used_model_leaves_and_never_one_in_use(sources):
    room = int(2.5 * size_of(sources))

    async def work(models):
        for name in ("a", "b", "a"):
            await models.hold(name)
            models.release(name)
        await models.hold("c")
        assert states(models) == {"a": "loaded", "b": "unloaded", "c": "loaded"}
        await models.hold("a")
        waiting = asyncio.ensure_future(models.hold("b"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        models.release("c")
        await waiting
        assert states(models) == {"a": "loaded", "b": "loaded", "c": "unloaded"}

    run(work, sources, memory=room)


def test_a_model_leaves_some_time_after_its_last_request(sources):
    async def work(models):
        await models.hold("a")
        await models.hold("a")
        models.release("a")
        await asyncio.sleep(0.05)
        assert states(models)["a"] == "loaded"
        models.release("a")
        while states(models)["a"] == "loaded":  # else the test ends in its timeout
            await asyncio.sleep(0.001)
        await models.hold("a")
        assert states(models)["a"] == "loaded"

    run(work, sources, memory=10**9, keep_alive=0.0)


def test_whoever_leaves_while_a_model_is_loaded_leaves_it_to_the_others(sources):
    async def work(models):
        first = asyncio.ensure_future(models.hold("a"))
        second = asyncio.ensure_future(models.hold("a"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).name == "a"
        assert next(iter(models)).users == 1

    run(work, sources, memory=10**9)


def test_a_model_that_cannot_be_loaded_says_so_each_time(sources, tmp_path):
    async def work(models):
        for _ in range(2):
            with pytest.raises(ApiError, match="'gone' cannot be loaded; the server's log"):
                await models.hold("gone")
        await models.hold("a")
        with pytest.raises(ApiError, match="there is a, b, c, gone"):
            await models.hold("other")

    run(work, {**sources, "gone": str(tmp_path / "gone")}, memory=10**9)


def test_requests_go_to_the_model_they_name(sources):
    with serving(Models(sources, load=LOAD, memory=10**9)) as client:
        for name in ("b", "a"):
            status, value = client.post(
                "/v1/chat/completions",
                model=name,
                messages=[{"role": "user", "content": "a"}],
                max_tokens=2,
            )
            assert status in {200, 400}, value  # the tiny model may have no template
        _, value = client.get("/v1/models")
        assert {model["id"]: model["state"] for model in value["data"]} == {
            "a": "loaded",
            "b": "loaded",
            "c": "unloaded",
        }
