"""An ONNX inference model as a torch module, for who has no PyTorch source.

The module goes through the same capture as any other. Its floating point initialisers are the
parameters, under their own names; what ONNX computes of shapes is computed once, when the model
is traced.
"""

from pockc.frontend.onnx_model.loading import load_onnx
from pockc.frontend.onnx_model.table import OPERATORS

__all__ = ["OPERATORS", "load_onnx"]
