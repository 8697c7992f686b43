"""After many sequences that come and go at random nothing is left, and none has said others'."""

import random

from support.traffic import Traffic


def test_sequences_that_come_and_go_leave_nothing(models):
    load, _ = models
    llm = load("int8")
    llm.prefix_cache.clear()
    draw = random.Random(4)
    with llm.engine(max_queue=6, at_once=5) as engine:
        traffic = Traffic(engine, draw)
        while len(traffic.prompts) < 20 or not engine.idle:
            if len(traffic.prompts) < 20:
                for _ in range(draw.randint(0, 3)):
                    traffic.submit()
            if draw.random() < 0.2:
                traffic.cancel()
            traffic.take(engine.step())
            traffic.check_memory(llm.prefix_cache)

        def alone(prompt, settings):
            return [token.id for token in llm.generate(prompt, **settings).tokens]

        traffic.check_end(llm.prefix_cache, alone)
    ends = {tokens[-1].finish_reason for tokens in traffic.found.values()}
    assert {"length", "cancelled", "timeout"} <= ends
