"""Samples on disk: nothing is lost, and nothing that is no sample is taken for one."""

import pytest

from edgellm.bench.evaluation.runs.samples import Samples
from edgellm.errors import ConfigError, FormatError


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    path = tmp_path / "samples.jsonl"
    first = Samples(path)
    first.add("run", "a", {"text": "yés"})
    first.add("run", "b", {"text": "no"})
    first.end("run", {"device": "chip"})
    first.add("other", "a", {"text": "maybe"})
    first.close()
    with path.open("ab") as file:
        file.write(b'{"schema": 1, "run": "other", "ques')  # the power went

    found = Samples(path, resume=True)
    assert found.known("run")["b"]["text"] == "no"
    assert found.known("run")["a"]["text"] == "yés"
    assert found.end_of("run") == {"device": "chip"}
    assert set(found.known("other")) == {"a"}
    assert found.end_of("other") is None

    found.add("other", "b", {"text": "late"})
    found.close()
    assert set(Samples(path, resume=True).known("other")) == {"a", "b"}


def test_samples_are_not_overwritten(tmp_path):
    path = tmp_path / "samples.jsonl"
    first = Samples(path)
    first.add("run", "a", {"text": "yes"})
    first.close()
    with pytest.raises(ConfigError, match="holds samples already") as caught:
        Samples(path)
    assert "--resume" in caught.value.hint


def test_without_a_file_there_is_nothing_to_go_on_from():
    with pytest.raises(ConfigError, match="--resume goes on from a file"):
        Samples(None, resume=True)


@pytest.mark.parametrize(
    "line", ['{"id": 1}', '{"schema": 2, "run": "a", "question": "b"}', "[]", "text"]
)
def test_another_file_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(FormatError, match=r"rows\.jsonl, line 1"):
        Samples(path, resume=True)


def test_two_evaluations_do_not_write_one_file(tmp_path):
    path = tmp_path / "samples.jsonl"
    first = Samples(path)
    for resume in (False, True):
        with pytest.raises(ConfigError, match="another evaluation writes to") as caught:
            Samples(path, resume=resume)
        assert "--samples" in caught.value.hint
    first.add("run", "a", {"text": "yes"})
    first.close()
    assert set(Samples(path, resume=True).known("run")) == {"a"}


@pytest.mark.parametrize("text", ['{"text": "mine"}', "a letter"])
def test_a_line_of_another_file_is_not_taken_for_a_sample_that_was_cut_off(tmp_path, text):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"mine\.jsonl, line 1 is no sample"):
        Samples(path, resume=True)
    assert path.read_text() == text
