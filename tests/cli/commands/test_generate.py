"""`edgellm generate`: that every option arrives, and what is printed."""

import io
import json
import sys
from pathlib import Path

from support.paths import ROOT

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.memory_plan.plan_checkpoint import least_memory
from edgellm.settings import LoadSettings


def test_generate_prints_the_text_and_nothing_else(run, model):
    with edgellm.load(model) as llm:
        text = llm.generate("Once upon", max_tokens=12).text
    assert run("generate", model, "--prompt", "Once upon", "--max-tokens", 12) == (
        0,
        f"{text}\n",
        "",
    )


def test_generate_reads_the_prompt_from_standard_input(run, model, monkeypatch):
    expected = run("generate", model, "-p", "Once\nupon", "--max-tokens", 8)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Once\nupon\n"))
    assert run("generate", model, "-p", "-", "--max-tokens", 8) == expected


def test_generate_hands_on_every_option_of_sampling(run, model):
    options = {
        "temperature": 1.3,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.25,
        "seed": 7,
    }
    with edgellm.load(model) as llm:
        text = llm.generate("Once", max_tokens=20, **options).text
    words = [
        word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)
    ]
    assert run("generate", model, "-p", "Once", "--max-tokens", 20, *words)[1] == f"{text}\n"


def test_generate_holds_the_answer_to_a_form(run, model, tmp_path):
    schema = '{"enum": ["yes", "no"]}'
    file = tmp_path / "answer.json"
    file.write_text(schema, encoding="utf-8")
    answers = {
        run("generate", model, "-p", "Once", "--json-schema", given)[1] for given in (schema, file)
    }
    assert len(answers) == 1
    assert answers <= {'"yes"\n', '"no"\n'}
    for grammar in ('root ::= "a" | "b"', 'start: "a" | "b"'):
        assert run("generate", model, "-p", "Once", "--grammar", grammar)[1] in {"a\n", "b\n"}
    code, out, told = run("generate", model, "-p", "Once", "-j", '{"items": {"not": {}}}')
    assert (code, out) == (2, "")
    assert "cannot be enforced at #/items/not" in told
    code, _, told = run("generate", model, "-p", "Once", "-j", schema, "--grammar", "x")
    assert (code, "both given" in told) == (2, True)


def test_generate_stops_at_any_of_the_texts(run, model):
    code, whole, _ = run("generate", model, "-p", "Once", "--max-tokens", 20)
    stop = whole[3:6]
    assert run(
        "generate", model, "-p", "Once", "--max-tokens", 20, "--stop", "@@@@", "--stop", stop
    ) == (
        code,
        whole.partition(stop)[0] + "\n",
        "",
    )


def test_generate_continues_fewer_lines_at_once_where_memory_is_short(run, model, tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(["Once upon a time"] * 6))
    options = ["--prompt-file", file, "--max-tokens", 20, "--json"]
    whole = run("generate", model, *options, "--memory", "500MB")[1].splitlines()
    tokens = json.loads(whole[0])["prompt_tokens"] + 20
    least = least_memory(read_checkpoint(Path(model)), LoadSettings(context=tokens))
    code, out, _ = run("generate", model, *options, "--memory", least)
    assert code == 0
    texts = [
        sorted(json.loads(line)["text"] for line in lines) for lines in (out.splitlines(), whole)
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 6


def test_generate_searches_with_beams(run, model):
    with edgellm.load(model) as llm:
        text = llm.generate("Once", max_tokens=8, beams=3).text
    assert run("generate", model, "-p", "Once", "--max-tokens", 8, "--beams", 3)[1] == f"{text}\n"


def test_generate_takes_a_prompt_as_a_turn(run, model):
    with (
        edgellm.load(model) as llm,
        llm.chat(system="Be brief.", temperature=0.0, top_p=1.0, max_tokens=10) as chat,
    ):
        answer = chat.send("hello")
    _, out, _ = run(
        "generate", model, "-p", "hello", "--chat", "--system", "Be brief.", "--max-tokens", 10
    )
    assert out == f"{answer}\n"


def test_generate_continues_each_line_of_a_file(run, model, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("Once upon\n\nThe little dog was\nOnce\n", encoding="utf-8")
    alone = [
        run("generate", model, "-p", text, "--max-tokens", 8)[1]
        for text in ("Once upon", "The little dog was", "Once")
    ]
    shown = "".join(f"--- {line}\n{text}" for line, text in zip((1, 3, 4), alone, strict=True))
    assert run("generate", model, "--prompt-file", file, "--max-tokens", 8) == (0, shown, "")
    code, out, _ = run(
        "generate", model, "--prompt-file", file, "--max-tokens", 8, "--batch", 2, "--json"
    )
    documents = sorted(map(json.loads, out.splitlines()), key=lambda document: document["index"])
    assert (code, [f"{document['text']}\n" for document in documents]) == (0, alone)
    assert [document["index"] for document in documents] == [1, 3, 4]
    code, _, err = run("generate", model, "--prompt-file", tmp_path / "none.txt")
    assert (code, "cannot be read: No such file or directory\n\nhint: name a text file" in err) == (
        2,
        True,
    )
    code, _, err = run("generate", model, "--prompt-file", file, "--batch", 0)
    assert (code, err.startswith("error: --batch is 0"), "\n\nhint: " in err) == (2, True, True)
    code, _, err = run("generate", model, "--prompt-file", file, "--beams", 2)
    assert (code, err.endswith("hint: use --prompt, or leave out --beams\n")) == (2, True)
    code, out, err = run(
        "generate", model, "--prompt-file", file, "--max-tokens", 2, "--context", 4
    )
    assert (code, out.count("---"), "prompt 3: " in err, "the context 4" in err) == (
        0,
        3,
        True,
        True,
    )


def test_generate_json_is_one_document_with_everything(run, model):
    code, out, err = run(
        "generate", model, "-p", "Once upon", "--max-tokens", 6, "--json", "--logprobs"
    )
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert (
        document["text"] + "\n" == run("generate", model, "-p", "Once upon", "--max-tokens", 6)[1]
    )
    promised = (
        "text prompt_tokens completion_tokens finish_reason prefill_seconds decode_seconds "
        "first_token_seconds peak_memory_bytes resident_bytes weight_passes bytes_read "
        "read_seconds tokens_per_second read_gbps pinned_share efficiency"
    )
    assert set(promised.split()) <= document.keys()
    assert (document["completion_tokens"], document["finish_reason"]) == (6, "length")
    assert document["context"] == document["prompt_tokens"] + 6, (
        "one completion holds no more room than it needs"
    )
    assert (document["weight_passes"], document["bytes_read"], document["efficiency"]) == (
        0,
        0,
        None,
    )
    assert [set(token) for token in document["tokens"]] == [{"id", "text", "logprob"}] * 6
    assert all(token["logprob"] <= 0 for token in document["tokens"])


def test_prompts_of_a_file_go_on_as_one_alone_does(run, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("Once upon\n")
    alone = run("generate", "stories", "--prompt", "Once upon", "--max-tokens", 4)[1]
    assert alone.startswith(" a time")
    assert (
        run("generate", "stories", "--prompt-file", file, "--max-tokens", 4)[1] == f"--- 1\n{alone}"
    )


def test_every_key_of_the_json_is_in_the_reference(run, model):
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    document = json.loads(
        run("generate", model, "-p", "Once", "--max-tokens", 2, "--json", "--logprobs")[1]
    )
    assert [key for key in document if f"`{key}`" not in page] == []


def test_a_model_that_pages_says_what_it_read(run, model, paging_budget):
    arguments = ["generate", model, "-p", "Once upon", "--max-tokens", 5, "--context", 64]
    paged = json.loads(run(*arguments, "--json", "--memory", paging_budget)[1])
    resident = json.loads(run(*arguments, "--json")[1])
    assert paged["text"] == resident["text"]
    assert paged["weight_passes"] == 5
    assert 0 <= paged["pinned_share"] < 1
    assert paged["bytes_read"] > 0
    assert 0 < paged["efficiency"] <= 1
    assert paged["budget_bytes"] == paging_budget
