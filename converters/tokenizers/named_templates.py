"""Named chat templates of a folder, put into one file: a converted folder is flat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from edgellm.chat_template.template import find_templates, named_template_files
from edgellm.files.strict_json import read_json

CONFIG = "tokenizer_config.json"
SINGLE = ("chat_template.jinja", "chat_template.json")
"""Files of one template; transformers would take the first for all that there is."""


def with_named_templates(
    folder: Path, companions: Mapping[str, Path | bytes]
) -> Mapping[str, Path | bytes]:
    """Return a folder's companions with its named templates in their tokenizer_config.json.

    There every reader finds them: a list of names and texts.

    Args:
        folder: where they come from.
        companions: files by their names.

    Raises:
        TemplateError, FormatError, ReadError: a file is damaged, or cannot be read.
    """
    if not named_template_files(folder):
        return companions
    config = {}
    if (folder / CONFIG).exists():
        config = read_json(folder / CONFIG)
    templates = find_templates(folder, config)
    config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    others = {name: file for name, file in companions.items() if name not in SINGLE}
    return others | {CONFIG: (json.dumps(config, indent=2) + "\n").encode()}
