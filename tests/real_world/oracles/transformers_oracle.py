"""transformers: its tokenizer, its template, its model in float32."""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import tokenizers
import torch
import transformers

from real_world.oracles.arrays_as_text import to_text
from real_world.oracles.serve import serve
from real_world.oracles.text_side import text_side

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)


def answer(request):
    """Ids, decoded texts, chats, logits and a greedy text of one folder."""
    if "versions" in request:
        names = ("transformers", "torch", "tokenizers")
        modules = (transformers, torch, tokenizers)
        return {name: module.__version__ for name, module in zip(names, modules, strict=True)}
    said = {}
    if request.get("texts") is not None:
        said |= text_side(request)
    model = opened(request)
    said["ends"] = ends_of(model)
    with torch.no_grad():
        said["logits"] = to_text(model(torch.tensor([request["prompt"]])).logits[0].float().numpy())
        ids = list(request["prompt"])
        for _ in range(request["new"]):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    said["greedy"] = ids[len(request["prompt"]) :]
    return said


def opened(request):
    """The model in float32, with an adapter merged if there is one."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        request["folder"],
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    wrong = {key: sorted(map(str, value)) for key, value in info.items() if value}
    wrong.pop("unexpected_keys", None) if request.get("extra") else None
    if wrong:
        raise ValueError(f"{request['folder']}: {wrong}")
    if request.get("adapter"):
        import peft

        model = peft.PeftModel.from_pretrained(model, request["adapter"])
        model = model.merge_and_unload()
    return model.eval()


def ends_of(model):
    """Tokens that end a generation."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        return []
    return sorted([ends] if isinstance(ends, int) else ends)


if __name__ == "__main__":
    serve(answer)
