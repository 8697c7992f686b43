"""Requests: settings of the Python interface and of the command line, messages, saved chats."""

import contextlib
import io
import json

from support.tiny import CONFIGS, write_model

import edgellm
from edgellm.cli.app import main
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.settings import LoadSettings, Sampling, parse_memory, parse_size
from fuzz.door import DifferenceError, Door
from fuzz.json_damage import JUNK, NUMBERS, TEXTS, damage_document, encode

SAMPLING = {
    "max_tokens": 2, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
    "repetition_penalty": 1.0, "beams": 1, "seed": None, "stop": [], "logprobs": False,
}  # fmt: skip
LOADING = {
    "memory": None, "context": 64, "context_window": None, "threads": 1, "activations": "auto",
    "backend": "auto", "prefill_chunk": 8, "kv_bits": None, "prompt_cache": False,
    "speculate": "auto", "draft": None,
}  # fmt: skip
CONVERSION = {"bits": 4, "group_size": 64, "dtype": "float16"}
BUDGETS = [
    "4GB", "1.5GiB", "60%", "auto", "0", "-1", "1e9", "9" * 40, "0%", "100%", "101%", "nan%",
    "1 GB", "GB", "1XB", "0.0000001", "1.5.5GB", "inf", "٣GB", "1GB\n", " 4 gb ", "1_000MB",
]  # fmt: skip
TAGGED = {"tuple": tuple, "set": set, "bytes": lambda items: bytes(len(items))}
"""Types that JSON does not have, as ``{"tuple of": [...]}``."""

OPTIONS = [
    "--max-tokens", "--temperature", "--top-p", "--top-k", "--min-p", "--repetition-penalty",
    "--beams", "--seed", "--stop", "--memory", "--context", "--context-window", "--kv-bits",
    "--threads", "--backend", "--activations", "--speculate", "--prompt", "--batch", "--json",
    "--logprobs", "--no-cache", "--nonsense",
]  # fmt: skip
CHAT = {
    "edgellm_chat": 1,
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
    ],
    "said": {"text": "<|begin|>", "ids": [0, 5, 6]},
}


class Requests(Door):
    name = "requests"
    share = 130

    def __init__(self, folder):
        super().__init__(folder)
        path = folder / "model"
        write_model(path, CONFIGS["llama-2"] | {"num_hidden_layers": 1})
        self.llm = edgellm.load(path, context=64, threads=1, speculate="off")
        self.chat = self.llm.chat()

    def damage(self, random):
        kind = random.random()
        if kind < 0.34:
            call, whole = "Sampling", SAMPLING
        elif kind < 0.60:
            call, whole = "LoadSettings", LOADING
        elif kind < 0.66:
            call, whole = "ConversionSettings", CONVERSION
        elif kind < 0.78:
            text = random.choice([*BUDGETS, *TEXTS, *NUMBERS, None, [], "%"])
            if isinstance(text, str) and text and random.random() < 0.5:
                at = random.randrange(len(text))
                text = text[:at] + random.choice("0.%GKiBb e-\x1b") + text[at + 1 :]
            return self._case("memory", [text])
        elif kind < 0.84:
            return {
                "request": encode(damage_document(json.loads(json.dumps(CHAT)), random), random)
            }
        elif kind < 0.94:
            messages = json.loads(json.dumps({"messages": CHAT["messages"], "tools": None}))
            return self._case("render", damage_document(messages, random))
        elif kind < 0.97:
            words = ["generate", "stories"]
            for _ in range(random.randint(1, 3)):
                words.append(random.choice(OPTIONS))
                if random.random() < 0.9:
                    words.append(str(random.choice([*NUMBERS, *TEXTS, *BUDGETS])))
            return self._case("command", [word.replace("\0", "") for word in words])
        else:
            settings = {name: SAMPLING[name] for name in random.sample(list(SAMPLING), 4)}
            settings |= {random.choice(list(SAMPLING)): random.choice([*NUMBERS, *JUNK])}
            prompt = random.choice(["Once", "", "\ud800", [1, 2], [], [-1], [10**9], "x " * 200])
            return self._case("generate", [prompt, settings | {"max_tokens": 1}])
        settings = dict(whole)
        for _ in range(random.choice((1, 1, 2, 3))):
            settings[random.choice(list(settings))] = _value(random)
        return self._case(call, settings)

    def _case(self, call, argument):
        return {"request": json.dumps([call, argument]).encode()}

    def open(self, files):
        try:
            document = json.loads(files["request"])
            document = _untagged(document)
        except (ValueError, RecursionError):
            document = {}
        if isinstance(document, list) and len(document) == 2:
            call, argument = document
            return getattr(self, f"_{call.lower()}")(argument)
        self.put({"chat.json": files["request"]})
        self.chat.load(self.folder / "chat.json")
        return None

    def _sampling(self, settings):
        return Sampling(**settings)

    def _loadsettings(self, settings):
        return LoadSettings(**settings)

    def _conversionsettings(self, settings):
        return ConversionSettings(**settings)

    def _memory(self, argument):
        [text] = argument
        if isinstance(text, str):
            with contextlib.suppress(ConfigError):
                parse_size(text)
        return parse_memory(text, 8 << 30)

    def _render(self, argument):
        messages = argument.get("messages") if isinstance(argument, dict) else argument
        if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
            raise ConfigError("no messages")  # which a type checker sees
        return self.llm.tokenizer.render(messages)

    def _command(self, words):
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = main([*words, "--prompt", "a", "--beams", "0"])
        if code == 0:
            raise DifferenceError("a command without sense ended with 0")
        raise EdgeLLMError(said.getvalue().strip())

    def _generate(self, argument):
        prompt, settings = argument
        return self.llm.generate(prompt, **settings)


def _value(random):
    value = random.choice([*JUNK, *BUDGETS, *NUMBERS])
    if random.random() < 0.1:
        return {f"{random.choice(list(TAGGED))} of": ["a"] * random.randrange(3)}
    return value


def _untagged(value):
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if isinstance(value, dict):
        for name, kind in TAGGED.items():
            if value.keys() == {f"{name} of"}:
                return kind(value[f"{name} of"])
        return {key: _untagged(item) for key, item in value.items()}
    return value
