"""From other formats to the model folder, and from it to llama.cpp's."""

from edgellm.converters.conversion import ConversionReport, ConversionStep
from edgellm.converters.convert import convert
from edgellm.converters.gguf_export.export import ExportReport, export

__all__ = ["ConversionReport", "ConversionStep", "ExportReport", "convert", "export"]
