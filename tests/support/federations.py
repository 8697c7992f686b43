"""Clients of a federation in this process, and what they learn from."""

from support.task_files import write_rows
from support.training import LORA

from edgellm.errors import EdgeLLMError, MachineError
from edgellm.federation.local_learning import LocalLearning
from edgellm.federation.task import Lesson, answer_from, task_from
from edgellm.settings import LoadSettings
from edgellm.training.optimizer import RateSettings
from edgellm.training.run.settings import TrainSettings

WORDS = ("dog", "cat", "ball", "sun", "sea", "tree", "moon", "fish")


def lesson(*, freeze_a=False, lora=LORA, rate=1e-2, **settings):
    rates = RateSettings(rate=rate, schedule="constant", warmup=0, decay=0)
    settings = {"batch": 2, "epochs": 1, **settings}
    return Lesson(
        settings=TrainSettings(lora=lora, rates=rates, **settings), freeze_a=freeze_a, max_tokens=64
    )


def write_records(path, words):
    rows = [{"prompt": f"Say {word}.", "completion": f" {word} {word}"} for word in words]
    write_rows(path, rows)
    return path


def client(model, data, **keywords):
    load = LoadSettings(activations="float", memory="1GB")
    said = keywords.pop("say", lambda _: None)
    return LocalLearning(model=str(model), data=data, load=load, say=said, **keywords)


class InProcess:
    """A fleet whose clients answer at once; messages go through the documents that travel."""

    def __init__(self, clients):
        self.clients = dict(clients)
        self.asked = []
        self.answers = []

    def present(self):
        return list(self.clients)

    def ask(self, task, clients, seconds):
        self.asked.append((task.kind, task.round, list(clients)))
        for name in clients:
            try:
                received = task_from(task.as_plain(), task.numbers.copy())
                answer = self.clients[name].answer(received)
                self.answers.append((name, answer))
                yield name, answer_from(answer.as_plain(), answer.numbers)
            except EdgeLLMError as error:
                yield name, MachineError(f"{name} failed: {error.message}", hint="see there")

    def traffic(self):
        return 0, 0
