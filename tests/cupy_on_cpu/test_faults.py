"""What a full device does to a fit."""

import cupy
import numpy as np
import pytest

import dlx
from cupy_on_cpu import emulate


def test_a_full_device_is_said_in_terms_of_the_batch():
    X = np.random.default_rng(0).standard_normal((4096, 50)).astype("float32")
    y = X[:, 0]
    cupy.get_default_memory_pool().free_all_blocks()
    with (
        emulate.memory_limit(4 << 20),
        pytest.raises(dlx.OutOfMemory, match=r"into the memory of cupy:0; got 4096\. Use a smaller batch_size"),
    ):
        dlx.fit(X, y, (50, 256, 1), batch_size=None, epochs=1, backend="cupy", rng=0)
    with emulate.memory_limit(4 << 20):  # the same in smaller batches fits, after what was held is given back
        net = dlx.fit(X, y, (50, 256, 1), batch_size=64, epochs=1, backend="cupy", rng=0)
    assert np.isfinite(net.history["loss"]).all()
