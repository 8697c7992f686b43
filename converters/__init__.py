"""From other formats to the model folder."""

from .pipeline import ConversionReport, ConversionStep, convert

__all__ = ["ConversionReport", "ConversionStep", "convert"]
