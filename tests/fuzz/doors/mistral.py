"""Mistral's own folders: params.json, a header, and tekken.json."""

from support.mistral_files import CONFIG, tekken, write_mistral
from support.tiny import LLAMA

from edgellm.converters.formats import open_format
from edgellm.converters.tensors.recipe import ConversionSettings, make_recipe
from edgellm.converters.tokenizers.companions import companion_tokenizer
from fuzz.door import Door
from fuzz.doors.folders import SMALL, damage_safetensors
from fuzz.json_damage import damage_json

TOKENS = "tekken.json"
PARAMS = "params.json"
WEIGHTS = "consolidated.safetensors"
MORE = {
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64, "beta": 32, "alpha": 1},
    "_sliding_window": [9, 9],
    "moe": None,
    "max_seq_len": 64,
}


class Mistral(Door):
    """Conversions from Mistral's own form."""

    name = "mistral"
    share = 10

    def __init__(self, folder):
        super().__init__(folder)
        names = ("hidden_size", "intermediate_size", "num_hidden_layers")
        small = CONFIG | {name: (LLAMA | SMALL)[name] for name in names}
        write_mistral(
            folder / "whole", config=small, params=MORE, tokenizer=tekken(listed=["<unk>", "<s>"])
        )
        files = {file.name: file.read_bytes() for file in (folder / "whole").iterdir()}
        self.params, self.tokens = files[PARAMS].decode(), files[TOKENS].decode()
        self.weights = files[WEIGHTS]
        self.keep(files)

    def damage(self, random):
        match random.randrange(4):
            case 0:
                return {WEIGHTS: damage_safetensors(self.weights, random)}
            case 1:
                return {TOKENS: damage_json(self.tokens, random)}
            case _:
                return {PARAMS: damage_json(self.params, random)}

    def open(self, files):
        self.put(files)
        source = open_format(self.folder)
        make_recipe(source, ConversionSettings())
        companion_tokenizer(source.companions, vocab_size=None)
        for name, tensor in source.tensors.items():
            source.rows(name, 0, min(2, tensor.rows))
        return source.companions
