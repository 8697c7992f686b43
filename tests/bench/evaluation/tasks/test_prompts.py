"""Prompts: the text that a model gets, to the letter."""

import pytest
from support.task_files import ROWS, write_rows

from edgellm.bench.evaluation.tasks.read_task import read_task
from edgellm.errors import ConfigError


def prompted(tmp_path, rows, *, shots=0, chat=None, **settings):
    """Return the task of some rows, and the prompts of those that are asked."""
    task = read_task(write_rows(tmp_path / "task.jsonl", rows), **settings)
    return task.prompts(task.questions(shots=shots), shots=shots, chat=chat)


@pytest.mark.parametrize(
    ("kind", "context", "continuations"),
    [
        ("classify", "Text: message 0 about cards\nLabel:", (" cards", " cash", " fees")),
        ("choose", "Question: What is 1 and 1?\nAnswer:", (" 1", " 2.", " none")),
        (
            "nli",
            "Dog 0 runs.\nQuestion: An animal moves. True, False or Neither?\nAnswer:",
            (" True", " Neither", " False"),
        ),
        (
            "answer",
            "Town 0 has bridges.\nQuestion: Which bridge is number 0?\nAnswer:",
            (),
        ),
        ("summarize", "Long story 0. It goes on.\nSummary:", ()),
        ("translate", "English: 0 dogs\nGerman:", ()),
        ("continue", "Once, in 0,", ()),
        ("text", "", ("The sun rose on day 0.\n",)),
    ],
)
def test_without_examples(tmp_path, kind, context, continuations):
    prompts = prompted(tmp_path, ROWS[kind])
    assert prompts.prompts[0].context == context
    assert prompts.prompts[0].continuations == continuations
    assert prompts.block == ""


def test_examples_come_first_and_end_with_their_answer(tmp_path):
    prompts = prompted(tmp_path, ROWS["classify"], shots=2)
    assert prompts.block == (
        "Text: message 5 about fees\nLabel: fees\n\nText: message 4 about cash\nLabel: cash\n\n"
    )
    assert prompts.prompts[0].context == prompts.block + "Text: message 0 about cards\nLabel:"


def test_entities_say_how_names_are_written(tmp_path):
    rows = [*ROWS["entities"], {"tokens": ["Hm", "."], "tags": ["O", "O"]}]
    prompts = prompted(tmp_path, rows, shots=2)
    assert prompts.block == (
        "Find the names in each text. Write a line for each, as type: name, in the order of the "
        "text. The types are person, place. Where there is no name, write none.\n\n"
        "Text: Hm .\nNames:\nnone\n\n"
        "Text: Ann Lee saw Rome 5\nNames:\nperson: Ann Lee\nplace: Rome\n\n"
    )
    # the line break is given: a model that wrote it would be stopped there
    assert prompts.prompts[0].context.endswith("Text: Ann Lee saw Rome 0\nNames:\n")
    assert prompts.stops == ("\n\n",)


def test_chats_have_examples_as_turns(tmp_path):
    prompts = prompted(tmp_path, ROWS["classify"], shots=1, chat=True)
    told = "Answer with one of these words alone: cards, cash, fees.\n\n"
    assert [dict(message) for message in prompts.prompts[0].messages] == [
        {"role": "user", "content": told + "Text: message 5 about fees\nLabel:"},
        {"role": "assistant", "content": "fees"},
        {"role": "user", "content": "Text: message 0 about cards\nLabel:"},
    ]
    assert prompts.prompts[0].continuations == ("cards", "cash", "fees")
    assert (prompts.prompts[0].context, prompts.stops) == ("", ())
    (message,) = prompted(tmp_path, ROWS["classify"], chat=True).prompts[0].messages
    assert message["content"] == told + "Text: message 0 about cards\nLabel:"


def test_a_question_without_an_answer_has_a_word_for_it(tmp_path):
    rows = [*ROWS["answer"], {**ROWS["answer"][0], "id": "n", "answers": [], "context": "Nothing."}]
    prompts = prompted(tmp_path, rows, shots=1)
    assert prompts.block.startswith('Where the text does not answer it, write "unanswerable".\n\n')
    assert prompts.block.endswith("Answer: unanswerable\n\n")


def test_dialogues_go_on_with_the_other_speaker(tmp_path):
    rows = [
        {"dialog": ["Hi.", "Hello.", "How are you?"]},
        {"dialog": [{"role": "user", "content": "Hi."}], "reference": "Hello."},
    ]
    prompts = prompted(tmp_path, rows)
    first, second = prompts.prompts
    assert (first.context, first.question.target) == ("A: Hi.\nB: Hello.\nA:", "How are you?")
    assert (second.context, second.question.target) == ("User: Hi.\nAssistant:", "Hello.")
    assert prompts.stops == ("\n",)


def test_choices_fill_the_blank_of_a_sentence(tmp_path):
    row = {"sentence": "The cup is small; the _ is big.", "option1": "jug", "option2": "pot"}
    prompt = prompted(tmp_path, [{**row, "answer": "2"}]).prompts[0]
    assert prompt.context == "The cup is small; the"
    assert prompt.continuations == (" jug is big.", " pot is big.")
    assert prompt.question.right == 1


def test_causes_and_effects_go_on_with_the_sentence(tmp_path):
    row = {"premise": "It rained.", "choice1": "The road was wet.", "choice2": "I slept."}
    rows = [{**row, "question": asks, "label": 0} for asks in ("effect", "cause")]
    effect, cause = prompted(tmp_path, rows).prompts
    assert (effect.context, cause.context) == ("It rained so", "It rained because")
    assert effect.continuations == (" the road was wet.", " I slept.")


def test_a_prompt_of_one_s_own_takes_the_place_of_all(tmp_path):
    rows = [{"text": f"t{n}", "label": "ab"[n % 2], "from": "me"} for n in range(4)]
    prompts = prompted(tmp_path, rows, shots=1, prompt="{{ from }} says {{ text }} =>\n")
    assert prompts.block == "me says t3 =>\nb\n\n"
    assert prompts.prompts[0].context == "me says t3 =>\nb\n\nme says t0 =>"
    assert prompts.prompts[0].continuations == ("\na", "\nb"), "blanks go to the answer"
    file = tmp_path / "prompt.jinja"
    file.write_text("{% if chat %}Chat {% endif %}{{ text }}: {{ labels | join('/') }}?\n")
    assert prompted(tmp_path, rows, prompt=str(file)).prompts[0].context == "t0: a/b?"
    (message,) = prompted(tmp_path, rows, prompt=file, chat=True).prompts[0].messages
    assert message["content"] == "Chat t0: a/b?"


def test_a_prompt_that_fails_says_on_which_row(tmp_path):
    rows = [*ROWS["classify"], {"text": "a", "label": "fees", "also": "b"}]
    with pytest.raises(ConfigError, match="fails on the row in line 1: 'also' is undefined"):
        prompted(tmp_path, rows, prompt="{{ text }} {{ also }}")
    assert prompted(tmp_path, rows, prompt="{{ text }}{{ also | default('!') }}")
    with pytest.raises(ConfigError, match=r"line 1: .*is unsafe"):
        prompted(tmp_path, rows, prompt="{{ text.__class__.mro() }}")
    with pytest.raises(ConfigError, match="the prompt of the row in line 1 is empty"):
        prompted(tmp_path, rows, prompt="{% if text == 'a' %}{{ text }}{% endif %}")


def test_answers_of_several_lines_do_not_end_at_the_first(tmp_path):
    rows = [{"document": f"d{n}", "summary": f"One {n}.\nTwo."} for n in range(3)]
    assert prompted(tmp_path, rows).stops == ("\n\n",)
    assert prompted(tmp_path, ROWS["summarize"]).stops == ("\n",)
    assert prompted(tmp_path, ROWS["continue"]).stops == ()
    assert prompted(tmp_path, ROWS["continue"], shots=1).stops == ("\n\n",)
