"""The doors by name."""

from fuzz.doors.adapters import Adapters
from fuzz.doors.bench_records import BenchRecords
from fuzz.doors.folders import Config, Index, Safetensors
from fuzz.doors.gguf import GgufBytes, GgufStructure
from fuzz.doors.litgpt import LitGPT
from fuzz.doors.llama2c import Llama2c
from fuzz.doors.mistral import Mistral
from fuzz.doors.packed_folders import PackedFolders
from fuzz.doors.pickles import Meta, Pickles
from fuzz.doors.prompt_caches import PromptCaches
from fuzz.doors.requests import Requests
from fuzz.doors.templates import Templates
from fuzz.doors.tokenizers import SentencePiece, TokenizerJson, TokenizerSettings

ALL = (
    *(Safetensors, Index, Config, PackedFolders),
    *(TokenizerJson, SentencePiece, TokenizerSettings, Templates),
    *(GgufBytes, GgufStructure, Pickles, Meta, Mistral, LitGPT, Llama2c, Adapters),
    *(PromptCaches, BenchRecords, Requests),
)
DOORS = {door.name: door for door in ALL}
