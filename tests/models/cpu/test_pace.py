"""How many threads take a pass, by the time that passes took."""

from edgellm.models.cpu.pace import Crew


def run(crew, seconds, passes):
    """The numbers of threads of some passes, each of which takes ``seconds`` of its number."""
    chosen = []
    for _ in range(passes):
        chosen.append(crew.threads())
        crew.observe(chosen[-1], seconds[chosen[-1]])
    return chosen


def test_all_threads_work_where_that_is_as_fast_as_ever():
    crew = Crew(8)
    assert run(crew, {8: 9.0}, 1) == [8]  # the first makes steps, and says nothing
    assert run(crew, {8: 0.02}, 300) == [8] * 300


def test_fewer_work_where_all_wait_for_each_other_until_they_do_not():
    crew = Crew(2)
    run(crew, {2: 0.02}, 20)
    busy = run(crew, {2: 0.06, 1: 0.04}, 200)
    assert set(busy[-50:-8]) <= {1, 2}
    assert busy[-100:].count(1) > 90
    idle = run(crew, {2: 0.02, 1: 0.04}, 1000)
    assert set(idle[:500]) == {1, 2}
    assert idle[500:].count(2) >= 495


def test_tiny_passes_try_every_number_once():
    crew = Crew(6)
    chosen = run(crew, {6: 0.003, 3: 0.002, 1: 0.001}, 400)
    assert set(chosen[:5]) == {6, 3, 1}
    assert chosen.count(1) > 380


def test_one_thread_has_nothing_to_choose():
    assert run(Crew(1), {1: 0.001}, 5) == [1] * 5
