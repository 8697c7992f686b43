"""The study of paged training: reads are the least, and bits are equal."""

from support.tiny import LAYERS
from support.training import in_four_bits

from edgellm.bench.studies.training.paged import main


def test_steps_are_taken_in_turns_and_compared(tmp_path, capsys):
    folder = in_four_bits(tmp_path)
    words = [str(folder), "--records", "2", "--tokens", "9", "--rank", "2", "--rounds", "2"]
    main(words)
    paged, whole = capsys.readouterr().out.splitlines()
    assert f" {2 * (LAYERS - 2)} layers read" in paged
    assert whole.endswith("bits are equal")
    main([*words, "--alone", "--pinned", str(LAYERS)])
    [alone] = capsys.readouterr().out.splitlines()
    assert " 0 layers read, waited for the disk 0.00 %" in alone
