"""The study beside PEFT: each kind runs, and agrees on a tiny model."""

import re

import pytest
from support.tiny import LLAMA, write_model
from support.training import in_four_bits

from edgellm.bench.studies.training.beside_peft import KINDS, main

FIGURE = re.compile(r"\d\.\de[+-]\d+")


def figures(capsys, folder, kinds):
    main([str(folder), "--kinds", kinds, "--records", "2", "--tokens", "24", "--steps", "3"])
    lines = capsys.readouterr().out.splitlines()
    return {line.partition(":")[0]: [float(one) for one in FIGURE.findall(line)] for line in lines}


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_kinds_agree_with_peft(tmp_path, capsys):
    pytest.importorskip("peft")
    kinds = [kind for kind in KINDS if kind != "mlx"]
    found = figures(capsys, write_model(tmp_path / "model", LLAMA), ",".join(kinds))
    assert list(found) == kinds
    for loss, derivatives, losses, cut, cut_derivatives in found.values():
        assert loss < 1e-5
        assert max(derivatives, losses) < 1e-4
        assert cut < 1e-5
        assert cut_derivatives < 1e-4


def test_mlx_lm_agrees_on_four_bits(tmp_path, capsys):
    [(loss, derivatives)] = figures(capsys, in_four_bits(tmp_path), "mlx").values()
    assert loss < 1e-5
    assert derivatives < 1e-4
