"""Quantizers: weight tensors in, the same tensors as a number format keeps them out; numpy only.

`evolve.quantizers.catalogue` explains the names.
"""

from evolve.quantizers.catalogue import QUANTIZERS, find_quantizer
from evolve.quantizers.encoding import Encoded
from evolve.quantizers.quantizer import Quantizer

__all__ = ["QUANTIZERS", "Encoded", "Quantizer", "find_quantizer"]
