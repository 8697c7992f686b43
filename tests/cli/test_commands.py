"""The command line: what goes to which stream, exit codes, and that every option arrives."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import util
from pathlib import Path

import pytest
import typer
from support import tiny
from support.paths import ROOT
from typer.main import get_command

import edgellm
from edgellm.cli import app as cli
from edgellm.cli.command_group import CommandEntry, CommandGroup
from edgellm.console.diagnosis_view import show_diagnosis
from edgellm.diagnostics.doctor import Check, Diagnosis

COMMANDS = list(get_command(cli.app).list_commands(None))
SLOW_START = "import sys; from edgellm.cli.app import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a random model."""
    return str(
        tiny.write_model(tmp_path_factory.mktemp("models") / "tiny", tiny.CONFIGS["llama-3.2"])
    )


@pytest.fixture
def run(capsys):
    """Runs a command line in this process; returns exit code, standard output and standard error."""

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


def leaves(group=None, words=()):
    """Return the words of every command that does something itself."""
    group = group or get_command(cli.app)
    context = group.make_context("edgellm", [], resilient_parsing=True)
    found = []
    for name, entry in group.table.items():
        command = group.get_command(context, name)
        inner = words if entry.hidden else (*words, name)
        if isinstance(command, CommandGroup):
            found += leaves(command, inner)
        else:
            found.append(list(inner))
    return found


def start(*arguments, **settings):
    """A command line in a process of its own."""
    command = [sys.executable, "-c", SLOW_START, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)


def budget(folder):
    """A budget in which this model has to page."""
    with edgellm.load(folder, context=64, prefill_chunk=32) as llm:
        return llm.plan.total_bytes - 1


# Help and wrong usage


def test_help_lists_every_command(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert run() == (code, out, err)


@pytest.mark.parametrize("command", leaves(), ids=" ".join)
def test_every_help_has_an_example_that_is_understood(run, command):
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    help_text, _, example = out.partition("Example:\n")
    words = example.split()
    assert words[: len(command) + 1] == ["edgellm", *command]
    options = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert all(f"{option} " in help_text for option in options)


def test_help_imports_nothing_that_takes_time():
    code = (
        "import contextlib, io, json, sys\n"
        "from edgellm.cli.app import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = "mlx torch transformers mlx_lm numba llvmlite numpy prompt_toolkit tokenizers sentencepiece jinja2 huggingface_hub"
    assert not set(heavy.split()) & set(json.loads(done.stdout))


def test_version(run):
    assert run("--version") == (0, f"edgellm {edgellm.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "fact", "hint"),
    [
        (["generat"], "there is no command 'generat'", "did you mean generate?"),
        (["xyzzy"], "there is no command 'xyzzy'", "see edgellm --help"),
        (
            ["generate", "--tempeature", "1"],
            "there is no option --tempeature",
            "did you mean --temperature?",
        ),
        (
            ["generate", "--tempeature=1"],
            "there is no option --tempeature",
            "did you mean --temperature?",
        ),
        (["info", "x", "--xyzzy"], "there is no option --xyzzy", "see edgellm info --help"),
        (
            ["generate", "-p", "x", "--temperature", "-1"],
            "temperature is -1.0; it must be between 0 and 100",
            None,
        ),
        (
            ["generate", "-p", "x", "--stop", ""],
            "a stop text is empty",
            "leave it out, or give the text that ends the answer",
        ),
        (
            ["generate", "-p", "x", "--backend", "abacus"],
            "backend is 'abacus'",
            "choose auto or mlx",
        ),
        (
            ["generate"],
            "there is no prompt",
            "give one with --prompt TEXT, or --prompt - to read standard input",
        ),
        (
            ["generate", "-p", "x", "--logprobs"],
            "log-probabilities are printed as JSON",
            "add --json",
        ),
        (
            ["generate", "-p", "x", "--system", "y"],
            "a system message needs a conversation",
            "add --chat",
        ),
    ],
)
def test_wrong_usage_is_a_fact_and_a_next_step(run, arguments, fact, hint):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err == (f"error: {fact}\n\nhint: {hint}\n" if hint else f"error: {fact}\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["info"], "MODEL"),
        (["info", "a", "b"], "b"),
        (["generate", "--prompt"], "--prompt"),
        (["generate", "-p", "x", "--max-tokens", "many"], "--max-tokens"),
        (["bench", "paging"], "MODEL"),
    ],
)
def test_wrong_usage_that_typer_notices_names_what_is_wrong(run, arguments, named):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    fact, _, hint = err.partition("\n\n")
    assert fact.startswith("error: ")
    assert named in fact
    assert hint.startswith("hint: see edgellm ")
    assert hint.endswith(" --help\n")


def test_a_command_is_imported_when_it_is_called(tmp_path, monkeypatch, capsys):
    module = "def greet(name: str): print('hello', name)\n"
    (tmp_path / "late_commands.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    class Group(CommandGroup):
        table = {"greet": CommandEntry("late_commands:greet", "Says hello.")}  # noqa: RUF012

    app = typer.Typer(cls=Group, rich_markup_mode=None)
    app.callback()(lambda: None)
    app(["--help"], standalone_mode=False)
    assert "greet  Says hello." in capsys.readouterr().out
    assert "late_commands" not in sys.modules
    app(["greet", "you"], standalone_mode=False)
    assert capsys.readouterr().out == "hello you\n"
    sys.modules.pop("late_commands")


def test_the_reference_is_up_to_date():
    found = util.spec_from_file_location("cli_reference", ROOT / "scripts" / "cli_reference.py")
    script = util.module_from_spec(found)
    found.loader.exec_module(script)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == script.reference()


# generate


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
        "seed": 7,
    }
    with edgellm.load(model) as llm:
        text = llm.generate("Once", max_tokens=20, **options).text
    words = [
        word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)
    ]
    assert run("generate", model, "-p", "Once", "--max-tokens", 20, *words)[1] == f"{text}\n"


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


def test_prompts_of_a_file_go_on_as_one_alone_does(run, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("Once upon\n")
    alone = run("generate", "stories", "--prompt", "Once upon", "--max-tokens", 4)[1]
    assert alone.startswith(" a time")
    assert (
        run("generate", "stories", "--prompt-file", file, "--max-tokens", 4)[1] == f"--- 1\n{alone}"
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
        "text prompt_tokens completion_tokens finish_reason prefill_seconds decode_seconds first_token_seconds "
        "peak_memory_bytes resident_bytes weight_passes bytes_read read_seconds tokens_per_second read_gbps pinned_share "
        "efficiency"
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


def test_every_key_of_the_json_is_in_the_reference(run, model):
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    document = json.loads(
        run("generate", model, "-p", "Once", "--max-tokens", 2, "--json", "--logprobs")[1]
    )
    assert [key for key in document if f"`{key}`" not in page] == []


def test_a_model_that_pages_says_what_it_read(run, model):
    arguments = ["generate", model, "-p", "Once upon", "--max-tokens", 5, "--context", 64]
    paged = json.loads(run(*arguments, "--json", "--memory", budget(model))[1])
    resident = json.loads(run(*arguments, "--json")[1])
    assert paged["text"] == resident["text"]
    assert paged["weight_passes"] == 5
    assert 0 <= paged["pinned_share"] < 1
    assert paged["bytes_read"] > 0
    assert 0 < paged["efficiency"] <= 1
    assert paged["budget_bytes"] == budget(model)


# The other commands


def test_convert_then_info_and_plan(run, model, tmp_path):
    made = tmp_path / "made"
    code, out, err = run(
        "convert", model, made, "--bits", 8, "--group-size", 32, "--json", "--report"
    )
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["quantization"] == {"group_size": 32, "bits": 8, "mode": "affine"}
    assert set(document["errors"].values()) != {0.0}

    facts = json.loads(run("info", made, "--json")[1])
    assert facts["quantization"]["bits"] == 8
    assert facts["num_hidden_layers"] == tiny.LAYERS
    assert facts["bytes"]["total"] == sum(
        facts["bytes"][part] for part in ("embedding", "layers", "norm", "head")
    )
    assert facts["bytes"]["total"] == document["weight_bytes"]
    assert facts["tokenizer"]["chat_template"] is True

    planned = json.loads(run("plan", made, "--context", 64, "--memory", "100MB", "--json")[1])
    assert planned["resident"] is True
    assert planned["layers"] == len(planned["pinned"]) == tiny.LAYERS
    assert planned["tokens_per_second"] > 0


def test_convert_says_what_it_made_and_does_not_replace_it(run, model, tmp_path):
    made = tmp_path / "made"
    code, out, err = run("convert", model, made)
    assert (code, out) == (0, "")
    assert str(made) in err
    assert "4 bits in groups of" in err
    code, out, err = run("convert", model, made)
    assert (code, out) == (1, "")
    assert (
        err
        == f"error: {made} already exists\n\nhint: name another one, or replace it with --force\n"
    )
    code, out, _ = run("convert", model, made, "--force", "--report")
    assert code == 0
    assert "model.layers.0.mlp.down_proj" in out


def test_info_is_a_table_that_a_pipe_gets_whole(run, model):
    code, out, err = run("info", model)
    assert (code, err) == (0, "")
    assert out.startswith(f"{model}\n")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    assert rows["type"] == "llama"
    assert rows["layers"].endswith("KB")
    assert "with a chat template" in rows["tokenizer"]
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_chat_asks_for_a_chat_template_before_it_loads(run, model, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(model, plain)
    config = json.loads((plain / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (plain / "tokenizer_config.json").write_text(json.dumps(config))
    code, out, err = run("chat", str(plain), "--memory", "1KB")  # which loading would refuse
    assert (code, out) == (1, "")
    assert err.startswith("error: plain has no chat template")


def test_plan_for_another_machine_is_limited_by_its_disk(run, model):
    options = ["--memory", budget(model), "--context", 64, "--sim-disk", "2MB/s"]
    planned = json.loads(run("plan", model, *options, "--json")[1])
    assert planned["bound_by"] == "disk"
    assert planned["tokens_per_second"] == pytest.approx(2e6 / planned["bytes_per_token"])
    code, out, err = run("plan", model, *options)
    assert (code, err) == (0, "")
    assert "limited by the disk" in out
    assert f"{len(planned['pinned'])} of {tiny.LAYERS} layers" in out


def test_plan_takes_a_share_of_another_machines_memory(run, model):
    planned = json.loads(
        run("plan", model, "--memory", "50%", "--sim-ram", "16GB", "--sim-disk", "3GB/s", "--json")[
            1
        ]
    )
    assert planned["budget"] == 8 * 10**9


def test_exit_codes(run, model, tmp_path):
    code, out, err = run("generate", model, "-p", "Once", "--memory", "10KB")
    assert (code, out) == (3, "")
    assert "\n\nhint: use --memory" in err
    code, out, err = run("info", "no-such-model")
    assert (code, out) == (1, "")
    assert err.startswith("error: there is no model 'no-such-model'\n\nhint: ")
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    code, out, err = run("generate", tmp_path, "-p", "Once")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    code, out, err = run("generate", model, "-p", "Once upon a time", "--context", 2)
    assert (code, out) == (1, "")
    assert err.startswith("error: the prompt has ")


def test_doctor_finds_this_machine_well(run, tmp_path):
    code, out, err = run("doctor", tmp_path, "--json")
    document = json.loads(out)
    assert [check for check in document["checks"] if not check["passed"]] == []
    assert (code, err, document["passed"]) == (0, "", True)
    assert document["disk"]["bytes_per_second"] > 0
    assert document["model"]["tokens_per_second"] > 0
    assert document["memory"]["total"] >= document["memory"]["available"] > 0
    assert document["packages"]["mlx"]
    assert list(tmp_path.iterdir()) == [], "what was written to measure the disk is gone"


def test_doctor_fails_where_a_check_does(run, tmp_path, monkeypatch):
    monkeypatch.setattr("edgellm.hub.resolve.BUNDLED", tmp_path)
    code, out, _ = run("doctor", tmp_path)
    assert code == 1
    assert "\nFAILED  bundled model: there is no model 'stories'; " in out
    assert "\nok      disk: " in out, "the other checks are made all the same"


def test_doctor_wants_a_folder(run, tmp_path):
    assert run("doctor", tmp_path / "nowhere") == (
        2,
        "",
        f"error: there is no folder {tmp_path / 'nowhere'}\n",
    )


def test_the_report_of_a_failure_says_so(capsys):
    found = Diagnosis(
        machine={
            "system": "S",
            "architecture": "A",
            "python": "P",
            "cpu": "C",
            "cores": 2,
            "usable_cores": 1,
        }
    )
    found.checks += [Check("one", True, "fine"), Check("other", False, "it is broken")]
    show_diagnosis(found)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "ok      one: fine",
        "FAILED  other: it is broken",
    ]


# Streams


def test_a_reader_that_goes_away_is_no_failure_to_talk_about(model):
    process = start("generate", model, "-p", "Once", "--max-tokens", 200)
    process.stdout.read(3)
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (1, b"")


def test_a_full_disk_is_said(model):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("wb") as full:
        command = [
            sys.executable,
            "-c",
            SLOW_START,
            "generate",
            model,
            "-p",
            "Once",
            "--max-tokens",
            "3",
        ]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output cannot be written: ")
    assert "Traceback" not in done.stderr


def test_a_closed_standard_output_is_like_nobody_listening(model):
    command = f'"{sys.executable}" -c "{SLOW_START}" generate "{model}" -p Once --max-tokens 3 >&-'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_any_text_can_be_printed_on_any_terminal(model):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = start(
        "generate",
        model,
        "-p",
        "Once é",
        "--max-tokens",
        40,
        "--temperature",
        2,
        "--seed",
        1,
        env=environment,
    )
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.decode("ascii")


def test_an_interrupt_ends_it_quietly(model):
    read, write = os.pipe()
    process = start("generate", model, "-p", "-", stdin=read)
    os.close(read)
    while Path(f"/proc/{process.pid}/stat").exists() and not waits(process.pid):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    os.close(write)
    assert (process.returncode, out) == (130, b"")
    assert err == b"interrupted\n"


def waits(pid):
    """Whether a process has loaded the tokenizer and sits waiting for its input."""
    if not Path("/proc").exists():
        time.sleep(3)
        return True
    libraries = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    return (
        "tokenizers" in libraries
        and Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] == "S"
    )


def test_a_local_folder_opens_no_socket(model):
    code = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    assert not event.startswith('socket.'), event\n"
        "sys.addaudithook(refuse)\n"
        "from edgellm.cli.app import main\n"
        "for words in (['generate', '-p', 'x', '--max-tokens', '2'], ['info'], ['plan']):\n"
        "    assert main([*words, sys.argv[1]]) == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, model], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
