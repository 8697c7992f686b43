"""Name the packages: three folders of the tree install as one package, which pyproject.toml alone cannot say."""

from setuptools import find_namespace_packages, find_packages, setup

ROOTS = {"edgellm": "edgellm", "converters": "edgellm.converters", "bench": "edgellm.bench"}


def packages() -> list[str]:
    """Every folder with modules, and the folders of the bundled models, by the names under which they install."""
    folders = [
        name
        for root in ROOTS
        for name in (root, *(f"{root}.{inner}" for inner in find_packages(root)))
    ]
    folders += [f"edgellm.bundled.{name}" for name in find_namespace_packages("edgellm/bundled")]
    return [ROOTS[name.partition(".")[0]] + name[len(name.partition(".")[0]) :] for name in folders]


setup(packages=packages(), package_dir={name: folder for folder, name in ROOTS.items()})
