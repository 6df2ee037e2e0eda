"""What takes a network to other libraries and back: ONNX, PyTorch.

Files: onnx_model, torch_modules.
They may import `dlx.files`, `dlx.data` and the equations.
"""
