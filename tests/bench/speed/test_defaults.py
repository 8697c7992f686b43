"""The backends that are measured where nobody names one."""

from edgellm.bench.backends.registry import BACKENDS
from edgellm.bench.speed.defaults import left_out, too_slow, usual_backends


def test_the_usual_backends_run_here():
    names = usual_backends()
    assert "edgellm" in names
    assert "endpoint" not in names
    slow = too_slow(names, ["small", "large"])
    assert all(model == "large" for _, model in slow)


def test_each_usual_backend_is_measured_or_said_to_be_missing():
    sentences = left_out(frozenset())
    for name in {"edgellm", "cpu", "mlx-lm", "transformers", "llama.cpp"} - {*usual_backends()}:
        (sentence,) = [line for line in sentences if f"the {name} backend" in line]
        assert BACKENDS[name].install in sentence
    assert ("cuda" in usual_backends()) or any("the cuda backend" in line for line in sentences)


def test_a_pair_that_is_left_out_is_said_with_the_command_that_measures_it():
    sentences = left_out(frozenset({("mlx-lm", "large")}))
    assert "edgellm bench large --backend mlx-lm" in sentences[-1]
