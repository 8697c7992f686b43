"""Name the packages: three folders of the tree install as one, which pyproject.toml cannot say."""

from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup
from setuptools.command.build_py import build_py

ROOTS = {"edgellm": "edgellm", "converters": "edgellm.converters", "bench": "edgellm.bench"}


class BuildPy(build_py):
    """Let type checkers find an editable installation, too."""

    def run(self) -> None:
        """Build; in an editable wheel also name the tree's root as a place of packages.

        Python finds the three folders by an import hook, which type checkers do not run.
        """
        super().run()
        if self.editable_mode:
            wheel = Path(self.get_finalized_command("install").install_lib)
            root = Path(__file__).resolve().parent
            (wheel / "edgellm-for-type-checkers.pth").write_text(f"{root}\n", encoding="utf-8")


def packages() -> list[str]:
    """Return every folder with modules, and those of bundled models, by their installed names."""
    folders = [
        name
        for root in ROOTS
        for name in (root, *(f"{root}.{inner}" for inner in find_packages(root)))
    ]
    folders += [f"edgellm.bundled.{name}" for name in find_namespace_packages("edgellm/bundled")]
    return [ROOTS[name.partition(".")[0]] + name[len(name.partition(".")[0]) :] for name in folders]


setup(
    packages=packages(),
    package_dir={name: folder for folder, name in ROOTS.items()},
    cmdclass={"build_py": BuildPy},
)
