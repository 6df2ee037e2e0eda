"""Networks in the formats of other libraries: ONNX and PyTorch.

Files: onnx_model, torch_modules.
They may import `dlx.files`, `dlx.data` and the equations.
"""
