"""Name the packages: three folders of the tree install as one, which pyproject.toml cannot say."""

from setuptools import find_namespace_packages, find_packages, setup

ROOTS = {"edgellm": "edgellm", "converters": "edgellm.converters", "bench": "edgellm.bench"}


def packages() -> list[str]:
    """Return every folder with modules, and those of bundled models, by their installed names."""
    folders = [
        name
        for root in ROOTS
        for name in (root, *(f"{root}.{inner}" for inner in find_packages(root)))
    ]
    folders += [f"edgellm.bundled.{name}" for name in find_namespace_packages("edgellm/bundled")]
    return [ROOTS[name.partition(".")[0]] + name[len(name.partition(".")[0]) :] for name in folders]


setup(packages=packages(), package_dir={name: folder for folder, name in ROOTS.items()})
