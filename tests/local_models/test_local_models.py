"""Models on this machine: listed, fetched and deleted, and nobody's own folder touched."""

import json

from support.gguf_files import WIDE, write_gguf
from support.processes import results_of
from support.stand_in_hub import hub_environment, serving_hub
from support.tiny import CONFIGS, write_model

import edgellm
from edgellm.local_models.names import model_folders

LLAMA = CONFIGS["llama-2"] | {"num_hidden_layers": 1}


def test_models_are_pulled_listed_and_removed(tmp_path):
    own = write_model(tmp_path / "own" / "mine", LLAMA)
    (tmp_path / "gguf").mkdir()
    write_gguf(tmp_path / "gguf" / "Tiny-Q8_0.gguf", WIDE, kinds=lambda _: "Q8_0")
    repositories = {
        "owner/tiny": write_model(tmp_path / "tiny", LLAMA),
        "owner/g": tmp_path / "gguf",
    }
    home = tmp_path / "home"
    with serving_hub(repositories) as server:
        results = results_of(
            [
                ["list", "--json"],
                ["pull", "owner/tiny"],
                ["pull", "owner/g:Q8_0"],
                ["list", "--json"],
                ["list"],
                ["list", str(tmp_path / "own"), "--json"],
                ["rm", "owner/tiny"],
                ["rm", str(own), "--yes"],
                ["rm", "stories", "--yes"],
                ["rm", "owner/g:Q8_0", "--yes"],
                ["rm", "owner/tiny", "--yes"],
                ["rm", "owner/g", "--yes"],
                ["list", "--json"],
                ["rm", "owner/tiny", "--yes"],
            ],
            hub_environment(server.address, home),
        )
    empty, tiny, gguf, whole, table, ours, unasked, foreign, bundled, *deleted, last, gone = results
    names = [model["name"] for model in json.loads(empty[1])]
    assert names == ["stories", "stories-draft"]
    assert (tiny[0], "snapshots" in tiny[1]) == (0, True)
    assert "owner/tiny: " in tiny[2]
    assert "ready: edgellm chat owner/tiny" in tiny[2]
    assert (gguf[0], "owner--g--Tiny-Q8_0" in gguf[1]) == (0, True)
    listed = json.loads(whole[1])
    assert [(model["name"], model["place"], model["fits"]) for model in listed[2:]] == [
        ("owner/g:Q8_0", "Hub cache", None),
        ("owner/tiny", "Hub cache", "in memory"),
        ("owner/g:Q8_0", "converted", "in memory"),
    ]
    assert [model["bits"] for model in listed[2:]] == [None, 32, 8]
    assert all(f"\n{model['name']} " in table[1] for model in listed)
    assert [model["name"] for model in json.loads(ours[1])] == [str(own)]
    assert (unasked[0], "add --yes" in unasked[2]) == (2, True)
    assert (foreign[0], "edgellm did not download it" in foreign[2]) == (2, True)
    assert (bundled[0], "comes with edgellm" in bundled[2]) == (2, True)
    assert [code for code, _, _ in deleted] == [0, 0, 0], deleted
    assert [model["name"] for model in json.loads(last[1])] == names
    assert (gone[0], "is not on this machine" in gone[2]) == (1, True)
    assert (own / "config.json").is_file()
    assert not list((home / "hub").glob("models--*/snapshots/*"))
    assert not list((home / "ours" / "edgellm" / "models").glob("owner--*"))


def test_what_is_in_use_or_elsewhere_is_not_deleted(tmp_path):
    home = tmp_path / "home"
    repository = home / "hub" / "models--owner--tiny"
    with serving_hub({"owner/tiny": write_model(tmp_path / "tiny", LLAMA)}) as server:
        environment = hub_environment(server.address, home)
        [(code, pulled, _)] = results_of([["pull", "owner/tiny"]], environment)
        assert code == 0
        with edgellm.load(pulled.strip()) as llm:
            [(code, _, err)] = results_of([["rm", "owner/tiny", "--yes"]], environment)
            assert (code, "owner/tiny is in use by a program" in err) == (2, True)
            assert llm.generate("hello", max_tokens=1).ids
        repository.rename(tmp_path / "elsewhere")
        repository.symlink_to(tmp_path / "elsewhere")
        [(code, _, err)] = results_of([["rm", "owner/tiny", "--yes"]], environment)
        assert (code, "is a link, to " in err) == (2, True)
        assert list(tmp_path.glob("elsewhere/snapshots/*/config.json"))
        repository.unlink()
        (tmp_path / "elsewhere").rename(repository)
        [(code, _, err)] = results_of([["rm", "owner/tiny", "--yes"]], environment)
        assert (code, repository.exists()) == (0, False)


def test_folders_that_are_models_are_found_by_the_beginnings_of_their_paths(tmp_path, monkeypatch):
    for name in ("models/one", "models/two", "more", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("models/one", "models/two", "more"):
        (tmp_path / name / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert model_folders("mo") == ["models/one", "models/two", "more"]
    assert model_folders("models/t") == ["models/two"]
    assert model_folders(f"{tmp_path}/mor") == [f"{tmp_path}/more"]
    assert model_folders("nothing/here") == []
