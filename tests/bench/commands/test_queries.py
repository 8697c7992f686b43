"""`edgellm bench queries` and `rate`: questions asked, and a judge for the answers."""

import json
from http.server import BaseHTTPRequestHandler

import pytest
from support.local_server import serving

from edgellm.bench.commands.queries import scaling_sentence
from edgellm.bench.statistics.amdahl import Scaling
from edgellm.cli.app import main


def test_no_share_of_the_work_is_said_where_threads_hinder():
    assert scaling_sentence("m", Scaling(seconds={1: 2.0, 2: 1.0})) == (
        "m: 2 threads 2.00 times (100% each); Amdahl: threads divide 100% of the work"
    )
    assert (
        scaling_sentence("m", Scaling(seconds={1: 1.0, 2: 4.0}))
        == "m: 2 threads 0.25 times (12% each); more threads hinder here"
    )


class JudgeHandler(BaseHTTPRequestHandler):
    """A server whose model grades by length, and wants to be asked with a key."""

    def do_GET(self):
        self._answer({"data": [{"id": "judge-1"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer secret"
        assert asked["model"] == "judge-1"
        self._answer(
            {
                "choices": [
                    {"message": {"content": f"{len(asked['messages'][1]['content']) % 10 + 1}/10"}}
                ]
            }
        )

    def _answer(self, found):
        data = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def judge_url():
    with serving(JudgeHandler) as server:
        yield server.address


def test_questions_are_asked_and_a_judge_scores_the_answers(
    tmp_path, capsys, monkeypatch, judge_url
):
    questions, answers = tmp_path / "questions.txt", tmp_path / "answers.json"
    questions.write_text("Who are you?\nTell a story.\n")
    command = ["bench", "queries", "stories", "--questions", str(questions)]
    command += ["--threads", "1,2", "--max-tokens", "3"]
    assert main([*command, "--output", str(answers)]) == 0
    shown = capsys.readouterr().out
    assert "stories: 2 threads" in shown
    assert main(["bench", "rate", str(answers)]) == 2, "nobody is there to ask"
    monkeypatch.setenv("JUDGE_KEY", "secret")
    assert (
        main(["bench", "rate", str(answers), "--judge", judge_url, "--key-variable", "JUDGE_KEY"])
        == 0
    )
    records = json.loads(answers.read_text())["records"]
    assert [record["number"] for record in records] == [1, 2, 1, 2]
    assert all(
        1 <= record["score"] <= 10 and record["scored_by"] == "judge-1" for record in records
    )
    assert records[0]["score"] == records[2]["score"]
    assert main(["bench", "rate", str(answers), "--judge", judge_url]) == 0
    assert "no answer without a score" in capsys.readouterr().err


def test_a_model_that_is_missing_is_said_once_with_a_next_step(tmp_path, capsys):
    assert main(["bench", "queries", str(tmp_path / "nothing"), "--threads", "1"]) == 1
    shown = capsys.readouterr()
    assert "(hint: name a folder" in shown.err
    assert not shown.out.endswith("\n\n")
