"""Templates that take too much end, and only the limits end them: without, each renders.

Each of these ends by itself, in half a second or in some 60 MB: so the same case shows what comes
of it with the limit and without.
"""

import signal
import subprocess
import sys
import threading

import pytest
from support.conversations import HELLO, TALK, render

from edgellm.chat_template.render_process import RenderLimits
from edgellm.chat_template.template import MAX_SOURCE
from edgellm.errors import TemplateError

LOOSE = RenderLimits(seconds=60.0, max_bytes=2 << 30, max_characters=1 << 30)
TOO_MUCH = "takes more time or memory than a conversation calls for"

# Each some tenths of a second, and then "done"
SLOW = {
    "loops": "{% for i in range(1000) %}{% for j in range(5000) %}{% endfor %}{% endfor %}",
    "a filtered loop": (
        "{% for i in range(40) %}{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}"
    ),
    "macros that branch": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(14) }}"
    ),
    "a long call into C": "{% set x = (3 ** 2500000) % 7 %}",
    "many calls into C": (
        "{% set l = range(99999) | list %}{% for i in range(20) %}{% set x = l | max %}{% endfor %}"
    ),
}

# Each some 60 MB, and then "done"; n is 60 million, which no compiler can know
LARGE = {
    "a string": "{% set x = 'x' * n %}",
    "a list": "{% set x = [0] * (n // 8) %}",
    "a padded string": "{% set x = 'x'.ljust(n) %}",
    "a wide format": "{% set x = ('%' ~ n ~ 'd') % 1 %}",
    "a joined string": "{% set x = (['x' * 1000] * (n // 1000)) | join %}",
    "a replacement": "{% set x = ('a' * 1000).replace('a', 'b' * (n // 1000)) %}",
    "a constant": "{{ ('x' * 60000000) | length }}",
    "doubling": (
        "{% set ns = namespace(v='x') %}"
        "{% for i in range(26) %}{% set ns.v = ns.v ~ ns.v %}{% endfor %}"
    ),
    "many small values": (
        "{% set ns = namespace(v=[]) %}"
        "{% for i in range(16) %}{% set ns.v = ns.v + range(99999) | list %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("source", SLOW.values(), ids=SLOW)
def test_only_the_limit_of_time_ends_it(source):
    with pytest.raises(TemplateError, match=TOO_MUCH):
        render(source + "done", limits=RenderLimits(seconds=0.05))
    assert render(source + "done", limits=LOOSE) == "done"


@pytest.mark.parametrize("source", LARGE.values(), ids=LARGE)
def test_only_the_limit_of_memory_ends_it(source):
    limits = RenderLimits(seconds=60.0, max_bytes=48 << 20)
    with pytest.raises(TemplateError, match=TOO_MUCH):
        render(source + "done", limits=limits, n=60_000_000)
    assert render(source + "done", limits=LOOSE, n=60_000_000).endswith("done")


def test_only_the_limit_of_the_text_ends_it():
    source = "{% for i in range(90000) %}0123456789{% endfor %}"
    limits = RenderLimits(max_characters=800_000)
    with pytest.raises(TemplateError, match=TOO_MUCH):
        render(source, limits=limits)
    assert len(render(source, limits=LOOSE)) == 900_000


@pytest.mark.parametrize(
    "source", [SLOW["loops"] * 20, "{% set x = 'x' * n %}", "{{ 'x' * 5000000 }}"]
)
def test_limits_that_nobody_set(source):
    with pytest.raises(TemplateError, match=TOO_MUCH):
        render(source, n=300_000_000)


def test_a_source_that_is_too_long():
    assert render("a" * MAX_SOURCE) == "a" * MAX_SOURCE
    with pytest.raises(TemplateError, match=f"the maximum is {MAX_SOURCE}"):
        render("a" * (MAX_SOURCE + 1))


@pytest.mark.parametrize(
    "source",
    [
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{{ " + "+".join(["1"] * 9000) + " }}",
        "{% for x in y %}" * 50 + "{% endfor %}" * 50,
    ],
    ids=["a macro in itself", "a block in itself", "a long sum", "loops in loops"],
)
def test_depth_that_python_refuses(source):
    with pytest.raises(TemplateError, match=r"fails: (RecursionError|SyntaxError)"):
        render(source)
    assert render("{{ 1 + 1 }}") == "2"


def test_limits_grow_with_the_conversation():
    many = [{"role": "user", "content": "word " * 200}] * 200
    each_pair = "{% for n in messages %}{% if n.role == m.role %}{% endif %}{% endfor %}"
    source = "{% for m in messages %}" + each_pair + "{{ m.content }}{% endfor %}"
    assert len(render(source, many)) == 200 * 1000
    long = [{"role": "user", "content": "a" * 8_000_000}]
    source = "{% for m in messages %}{{ '<' + m.content | trim + '>' }}{% endfor %}"
    assert len(render(source, long)) == 8_000_002


def test_memory_of_the_caller_does_not_count():
    ballast = b"x" * (100 << 20)
    render("{% set x = n * 50 %}", limits=LOOSE, n="x" * 2_000_000)  # the next process is a new one
    limits = RenderLimits(seconds=60.0, max_bytes=48 << 20)
    assert render(SLOW["loops"] + "done", limits=limits) == "done"
    assert len(ballast) == 100 << 20


def test_threads_are_not_touched_by_the_end_of_another():
    texts = []

    def work():
        for _ in range(2):
            with pytest.raises(TemplateError, match=TOO_MUCH):
                render(SLOW["loops"], limits=RenderLimits(seconds=0.05))
            texts.append(render("{{ messages | length }}", TALK))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["4"] * 6


def test_an_interruption_leaves_nothing_for_the_next_rendering():
    def interrupt(*_):
        raise KeyboardInterrupt

    main = threading.main_thread().ident
    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.3, signal.pthread_kill, [main, signal.SIGUSR1])

    def render_long():
        timer.start()
        render(SLOW["loops"] * 40 + "late", limits=LOOSE)

    try:
        with pytest.raises(KeyboardInterrupt):
            render_long()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert render("{{ messages[0].role }}", HELLO) == "user"


WITHOUT_SYSTEM_LIMIT = """
import resource

def refuse(*_):
    raise ValueError("not on this system")

resource.setrlimit = refuse
from edgellm.chat_template.renderer import limited

blocks = []
try:
    with limited(60.0, 200 << 20):
        while len(blocks) < 2000:
            blocks.append(bytearray(b"x" * (1 << 20)))
except MemoryError:
    print(len(blocks) < 1900)
"""


def test_memory_is_watched_where_the_system_does_not_limit_it():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SYSTEM_LIMIT], capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr
