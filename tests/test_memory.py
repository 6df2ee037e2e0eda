"""Out of memory: one error, which names the batch size and what needs how much."""

import numpy as np
import pytest
import scipy.sparse

import dlx
from dlx.training import loop, memory

X = np.zeros((50, 3), np.float32)
TEXT = (
    r"`batch_size` must let a fit of about .* \(data .*, parameters .*, batch .*, blocks .*\) into the memory of .*; "
    r"got 50\. Use a smaller batch_size, .*"
)


def test_weights_that_no_memory_holds(be):
    with pytest.raises(dlx.OutOfMemory, match=TEXT):
        dlx.fit(X, X[:, 0], (3, 10**13, 1), backend=be, dtype="float32")


def test_another_error_stays_what_it_is(monkeypatch):
    def fail(*arguments, **named):
        raise RuntimeError("something else")

    monkeypatch.setattr(loop, "train", fail)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        dlx.fit(X, X[:, 0], (3, 1))


@pytest.mark.parametrize("optimizer", ["adam", "gradient_descent", "lbfgs"])
def test_needs_are_those_of_the_arrays(optimizer):
    chosen = dlx.optimizers.get(optimizer)
    found = memory.needs(np.zeros((1000, 20)), (20, 30, 4), 128, chosen, 4, dlx.get_backend("numpy"))
    vectors = {"adam": 4, "gradient_descent": 2, "lbfgs": 22}[optimizer]  # weights, gradients, state
    blocks = 1000 * (20 + 3 * (30 + 4))  # of a diagnosis; a prediction holds 20 + 2 * 30 + 4 * 4 numbers a row
    parameters = vectors * (21 * 30 + 31 * 4)
    assert found == (4 * 1000 * 20, 4 * parameters, 4 * 128 * (2 * 20 + 3 * (30 + 4)), 4 * blocks)


def test_needs_follow_blocks_and_not_data():
    be, adam = dlx.get_backend("numpy"), dlx.optimizers.get("adam")
    few, many = (memory.needs(np.zeros((n, 20), "f4"), (20, 1000), 128, adam, 4, be) for n in (10_000, 200_000))
    assert few.blocks == many.blocks < 2 * memory.scoring.ROWS_SAMPLED * 4 * 3100
    X = scipy.sparse.eye_array(1000, 1 << 18, format="csr")
    assert memory.needs(X, (1 << 18, 2), 128, adam, 8, be).data == X.nnz * (8 + 4)


def test_sizes_are_written_in_units():
    assert [memory._in_units(size) for size in (5, 2048, 3 * 2**20, 5.5 * 2**40)] == [
        "5 bytes",
        "2 KiB",
        "3 MiB",
        "5.63e+03 GiB",
    ]


@pytest.mark.parametrize(
    ("error", "means_it"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 80000000000000 bytes."), {"jax"}),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: ..."),
            {"torch"},
        ),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_each_library_says_it_in_its_own_way(be, error, means_it):
    assert be.out_of_memory(error) == (means_it if isinstance(means_it, bool) else be.name in means_it)
    be.release_memory()
    assert be.to_host(be.asarray([1.0])).tolist() == [1.0]
