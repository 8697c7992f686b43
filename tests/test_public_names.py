"""The public names: all there, all completed, and a misspelt one told which was meant."""

import ast
import inspect

import pytest
from support.paths import ROOT

import edgellm
from edgellm import errors

TREE = ast.parse((ROOT / "edgellm" / "__init__.py").read_text(encoding="utf-8"))


def imported_for_type_checkers():
    """The modules of the names that type checkers see."""
    (block,) = (
        node
        for node in TREE.body
        if isinstance(node, ast.If)
        and not node.orelse
        and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.asname or alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_see_what_python_imports():
    modules = imported_for_type_checkers()
    assert sorted(modules) == sorted(edgellm.__all__)
    for name, module in modules.items():
        found = getattr(edgellm, name)
        assert found is getattr(__import__(module, fromlist=[name]), name)
        assert inspect.getdoc(found) or name == "FinishReason"


def test_every_error_is_public():
    kinds = {
        name
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, errors.EdgeLLMError)
    }
    assert kinds <= set(edgellm.__all__)


def test_a_shell_completes_public_names_alone():
    assert sorted(dir(edgellm)) == sorted([*edgellm.__all__, "__version__"])


@pytest.mark.parametrize(("name", "meant"), [("laod", "load"), ("Samplng", "Sampling")])
def test_a_misspelt_name_is_told_which_was_meant(name, meant):
    with pytest.raises(AttributeError, match=f"'{name}'; did you mean {meant}\\?"):
        getattr(edgellm, name)
    assert not hasattr(edgellm, "nothing_of_the_kind")
    assert not hasattr(edgellm, "__path_of_another_kind__")
