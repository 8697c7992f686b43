"""From other formats to the model folder, and from it to llama.cpp's."""

from .gguf_export import ExportReport, export
from .pipeline import ConversionReport, ConversionStep, convert

__all__ = ["ConversionReport", "ConversionStep", "ExportReport", "convert", "export"]
