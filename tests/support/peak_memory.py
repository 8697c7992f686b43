"""How much memory a conversion takes at most, and models of zeros to convert."""

import json

import numpy as np

from edgellm.checkpoint.model_config import ModelConfig


def sparse_model(path, config):
    """A float16 model of zeros that takes no room on the disk."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    model = ModelConfig.from_dict(config)
    shapes = dict(model.outer_shapes())
    for index in range(model.num_hidden_layers):
        shapes |= {
            f"model.layers.{index}.{name}": shape for name, shape in model.tensor_shapes().items()
        }
    end, header = 0, {}
    for name, shape in shapes.items():
        header[name] = {
            "dtype": "F16",
            "shape": shape,
            "data_offsets": [end, end := end + int(np.prod(shape)) * 2],
        }
    text = json.dumps(header).encode()
    with (path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


PEAK = """
import resource, sys
from edgellm.converters import convert
report = convert(sys.argv[1], sys.argv[2], report=True)
try:
    lines = open("/proc/self/status")
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
except OSError:  # macOS, where it is in bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak)
"""
