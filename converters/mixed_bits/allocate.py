"""Bits spent where a model needs them: from measured costs to a form for each matrix."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgellm.checkpoint.folder import LAYER_PREFIX
from edgellm.checkpoint.quantization import DEFAULT_GROUP_SIZE, Quantization, chosen_quantization
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.converters.mixed_bits.backward import EMBEDDING
from edgellm.converters.mixed_bits.calibration import calibration_text, calibration_tokens
from edgellm.converters.mixed_bits.fisher import Costs, measure
from edgellm.converters.tensors.recipe import Matrix, make_recipe
from edgellm.converters.tensors.settings import UNQUANTIZED_BITS, ConversionSettings
from edgellm.converters.tensors.source import Source
from edgellm.errors import ConfigError
from edgellm.files.given_path import given_path

DEFAULT_AVERAGE_BITS = 4.5
"""4 bits in groups of 64, with scales and biases of 16 bits."""


RECIPES = ("uniform", "mixed")
MEASURING = "measuring what bits are worth"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedSettings:
    """How bits are spread.

    Attributes:
        average_bits: of a weight, scales and biases counted.
        calibration: a text file for the model to read; None: a short text that comes along.
    """

    average_bits: float = DEFAULT_AVERAGE_BITS
    calibration: Path | None = None

    def __post_init__(self) -> None:
        """Check the range."""
        if not 2.0 <= self.average_bits <= 16.0:
            raise ConfigError(
                f"average_bits is {self.average_bits}; it must be between 2 and 16",
                hint=f"{DEFAULT_AVERAGE_BITS} is usual",
            )

    def text(self) -> str | None:
        """Read the calibration text; None: there is no file. Raises ReadError."""
        return calibration_text(self.calibration)


def mixed_settings(
    recipe: str | None,
    average_bits: float | None,
    calibration: str | Path | None,
    *,
    bits: int | None,
    shared: bool = False,
) -> MixedSettings | None:
    """Make a mixed recipe's settings; None: a uniform recipe. Raises ConfigError.

    ``shared``: something else reads the calibration text, too.
    """
    if recipe is not None and recipe not in RECIPES:
        raise ConfigError(
            f"there is no recipe {recipe!r}", hint=f"choose one of {', '.join(RECIPES)}"
        )
    if recipe != "mixed":
        if average_bits is not None or (calibration is not None and not shared):
            raise ConfigError(
                "an average of bits and a calibration text belong to the mixed recipe",
                hint="add --recipe mixed",
            )
        return None
    if bits is not None:
        raise ConfigError(
            "a mixed recipe chooses the bits itself",
            hint="leave out --bits, or give --average-bits",
        )
    if average_bits is None:
        average_bits = DEFAULT_AVERAGE_BITS
    if calibration is not None:
        calibration = given_path(calibration)
    return MixedSettings(average_bits=average_bits, calibration=calibration)


def mix(
    source: Source,
    settings: ConversionSettings,
    mixed: MixedSettings,
    *,
    progress: Callable[[str, int, int], None],
) -> tuple[dict[str, Quantization], ConversionSettings]:
    """Measure a source; return the form of each matrix and the settings that go with them.

    Args:
        source: the model.
        settings: group size and type, as wished.
        mixed: the average, and what the model reads.
        progress: called with a name, bytes read and bytes to be read.

    Raises:
        ConfigError: the average cannot be had, or the text is too short.
        FormatError, ReadError, TokenizerError, UnsupportedModelError: as a conversion.
    """
    group_size = settings.group_size or DEFAULT_GROUP_SIZE
    recipe = make_recipe(source, ConversionSettings(bits=UNQUANTIZED_BITS, dtype=settings.dtype))
    vocabulary = recipe.matrices[EMBEDDING].shape[0]
    sequences = calibration_tokens(source.companions, mixed.text(), vocabulary=vocabulary)
    costs, _ = measure(
        source,
        recipe,
        sequences,
        group_size=group_size,
        progress=lambda done, total: progress(MEASURING, done, total),
    )
    forms = choose_forms(
        recipe.matrices, costs, average_bits=mixed.average_bits, group_size=group_size
    )
    usual = Counter(form.bits for form in forms.values()).most_common(1)[0][0]
    return forms, replace(settings, bits=usual, group_size=group_size)


@dataclass(frozen=True, slots=True)
class _Choice:
    """One way to store a unit: its bits, its bytes, and what it costs."""

    bits: int
    nbytes: float
    cost: float


def choose_forms(
    matrices: Mapping[str, Matrix], costs: Costs, *, average_bits: float, group_size: int
) -> dict[str, Quantization]:
    """Choose the forms that together cost least at an average, scales and biases counted.

    Matrices that are stacked (queries, keys and values; gate and up) get the same bits, so that
    they stay one product. Every unit begins with the fewest bits; then the step that saves most for
    its bytes is taken, again and again, along each unit's convex hull, while it fits.

    Raises:
        ConfigError: no recipe has such an average.
    """
    units = {name: paths for name, paths in _units(costs).items() if costs[paths[0]]}
    weights = sum(math.prod(matrices[path].shape) for paths in units.values() for path in paths)
    hulls = {
        name: _hull(
            _Choice(
                bits,
                sum(_nbytes(matrices[path], bits, group_size) for path in paths),
                sum(costs[path][bits] for path in paths),
            )
            for bits in sorted(costs[paths[0]])
        )
        for name, paths in units.items()
    }
    free_bytes = average_bits / 8 * weights - sum(hull[0].nbytes for hull in hulls.values())
    if not hulls or free_bytes < 0 or average_bits > 16:
        low = sum(hull[0].nbytes for hull in hulls.values()) * 8 / weights if weights else 0
        raise ConfigError(
            f"an average of {average_bits} bits cannot be had",
            hint=f"choose one from {low:.2f} to 16",
        )
    steps = []
    for name, hull in hulls.items():
        for at, (before, after) in enumerate(itertools.pairwise(hull), start=1):
            added_bytes = after.nbytes - before.nbytes
            steps.append(((before.cost - after.cost) / added_bytes, name, at, added_bytes))
    taken = dict.fromkeys(hulls, 0)
    for _, name, at, nbytes in sorted(steps, reverse=True):
        if nbytes <= free_bytes and taken[name] == at - 1:
            taken[name] = at
            free_bytes -= nbytes
    forms = {}
    for name, paths in units.items():
        bits = hulls[name][taken[name]].bits
        for path in paths:
            form = chosen_quantization(matrices[path].shape[1], bits, group_size)
            assert form is not None, "a matrix with costs fits a group"
            forms[path] = form
    return forms


def _units(paths: Iterable[str]) -> dict[str, list[str]]:
    """Group the paths that get the same bits: the members of a stack, or a matrix alone."""
    stack_of = {member: stack for stack, members in STACKS.items() for member in members}
    units: dict[str, list[str]] = {}
    for path in sorted(paths):
        unit = path
        if path.startswith(LAYER_PREFIX):
            _, _, index, inner = path.split(".", 3)
            unit = f"{LAYER_PREFIX}{index}.{stack_of[inner]}"
        units.setdefault(unit, []).append(path)
    return units


def _nbytes(matrix: Matrix, bits: int, group_size: int) -> float:
    form = chosen_quantization(matrix.shape[1], bits, group_size)
    assert form is not None, "a matrix with costs fits a group"
    # each group has a scale and a bias
    return math.prod(matrix.shape) * (bits / 8 + 2 * DTYPE_BYTES[matrix.dtype] / form.group_size)


def _hull(choices: Iterable[_Choice]) -> list[_Choice]:
    """Keep the choices that some price of a byte makes the best, the smallest first."""
    hull: list[_Choice] = []
    for choice in choices:
        while hull and (
            choice.cost >= hull[-1].cost
            or (len(hull) > 1 and not _bends(hull[-2], hull[-1], choice))
        ):
            if choice.cost >= hull[-1].cost:
                break
            hull.pop()
        if not hull or choice.cost < hull[-1].cost:
            hull.append(choice)
    return hull


def _bends(first: _Choice, second: _Choice, third: _Choice) -> bool:
    """Return whether the second step saves less for its bytes than the first."""
    one = (first.cost - second.cost) * (third.nbytes - second.nbytes)
    two = (second.cost - third.cost) * (second.nbytes - first.nbytes)
    return one > two
