"""What a user of skl2onnx calls: `register` enters dlx's estimators in its table, once in a process."""

from dlx.estimators.onnx_hooks import OnnxHooks, convert, register, shapes

__all__ = ["OnnxHooks", "convert", "register", "shapes"]
