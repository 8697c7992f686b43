"""transformers: its tokenizer, its template, its model in float32."""

import contextlib
import json
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
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
        found = {name: module.__version__ for name, module in zip(names, modules, strict=True)}
        for name in ("peft", "compressed-tensors"):
            with contextlib.suppress(PackageNotFoundError):
                found[name] = version(name)
        return found
    if "shapes" in request:
        return {"shapes": shapes_of(request["shapes"])}
    if "train" in request:
        return trained(request)
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
    """The model in float32, with an adapter merged if there is one, and codes dequantized."""
    settings = {}
    config = json.loads((Path(request["folder"]) / "config.json").read_text())
    method = (config.get("quantization_config") or {}).get("quant_method")
    if method == "fp8":
        settings["quantization_config"] = transformers.FineGrainedFP8Config(dequantize=True)
    elif method == "compressed-tensors":
        settings["quantization_config"] = transformers.CompressedTensorsConfig(run_compressed=False)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        request["folder"],
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
        **settings,
    )
    wrong = {key: sorted(map(str, value)) for key, value in info.items() if value}
    if request.get("unused"):
        del wrong["unexpected_keys"]
    if wrong:
        raise ValueError(f"{request['folder']}: {wrong}")
    if request.get("adapter"):
        import peft

        model = peft.PeftModel.from_pretrained(model, request["adapter"])
        model = model.merge_and_unload()
    return model.eval()


def shapes_of(folder):
    """Names and shapes of the tensors that a config's model has, without a tied head."""
    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    tied = set(model.all_tied_weights_keys)
    return {
        name: list(values.shape) for name, values in model.state_dict().items() if name not in tied
    }


def trained(request):
    """Save an adapter whose numbers are no longer those it begins with."""
    import peft

    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_pretrained(request["train"], dtype=torch.float32)
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **request["settings"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn_like(parameter) / 20
                parameter.mul_(1 + noise.abs()) if "magnitude" in name else parameter.add_(noise)
    model.save_pretrained(request["to"])
    return {}


def ends_of(model):
    """Tokens that end a generation."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        return []
    return sorted([ends] if isinstance(ends, int) else ends)


if __name__ == "__main__":
    serve(answer)
