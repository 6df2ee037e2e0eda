"""The emulated runtime itself: what it counts, who owns which memory, how much there is."""

import gc

import cupy
import numpy as np
import pytest

import dlx
from cupy_on_cpu import emulate

runtime = cupy.cuda.runtime
CUDARuntimeError = runtime.CUDARuntimeError


def counted(**expected):
    """All counters, those not named at 0."""
    return emulate.Counters(**(dict.fromkeys(emulate.Counters._fields, 0) | expected))


def without_mallocs(done):
    return done.total._replace(mallocs=0)


@pytest.fixture
def x():
    return cupy.ones((3, 3))


# Counting ------------------------------------------------------------------------------------------------------------

SEQUENCES = {
    "a ufunc": (lambda x: x + 1, {"launches": 1}),
    "a ufunc in place": (lambda x: cupy.add(x, 1, x), {"launches": 1}),
    "a reduction": (lambda x: x.sum(axis=0), {"launches": 1}),
    "views": (lambda x: x[1:].T.reshape(2, 3), {"launches": 1}),  # the last needs a copy
    "product": (lambda x: x @ x.T, {"gemms": 1}),
    "a batch of products": (lambda x: x[None] @ x[None], {"gemms": 1}),
    "copy": (lambda x: x.copy(), {"launches": 1}),
    "fill": (lambda x: cupy.zeros(3), {}),  # memset
    "to the device": (lambda x: cupy.asarray(np.ones(3)), {"host_to_device": 1}),
    "a scalar to the device": (lambda x: cupy.asarray(1.0), {"launches": 1}),
    "to the host": (lambda x: cupy.asnumpy(x), {"device_to_host": 1, "syncs": 1}),
    "float": (lambda x: float(x[0, 0]), {"device_to_host": 1, "syncs": 1}),
    "a condition": (lambda x: bool(cupy.all(x > 0)), {"launches": 2, "device_to_host": 1, "syncs": 1}),
    "device.synchronize": (lambda x: x.device.synchronize(), {"syncs": 1}),
    "stream.synchronize": (lambda x: cupy.cuda.get_current_stream().synchronize(), {"syncs": 1}),
    "event.synchronize": (lambda x: cupy.cuda.Event().synchronize(), {"syncs": 1}),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_counts(name, x):
    function, expected = SEQUENCES[name]
    with emulate.counting() as done:
        function(x)
    assert without_mallocs(done) == counted(**expected)


def test_malloc_is_counted_where_the_pool_has_nothing():
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    for expected in (1, 0):
        with emulate.counting() as done:
            cupy.empty(1000)
        assert done.mallocs == expected


def test_kernels_are_counted_by_name(x):
    emulate.reset()
    x + x
    with emulate.counting() as done:
        x + x
        cupy.exp(x)
    assert done.kernels == {"cupy_add__float64_float64_float64": 1, "cupy_exp__float64_float64": 1}
    assert emulate.kernels() == {"cupy_add__float64_float64_float64": 2, "cupy_exp__float64_float64": 1}
    emulate.reset()
    assert emulate.kernels() == {}
    assert emulate.counters() == counted()


def test_counting_goes_on_while_the_block_runs(x):
    with emulate.counting() as done:
        x + 1
        assert done.launches == 1
        x + 1
    x + 1
    assert done.launches == 2
    assert repr(done).startswith("Counters(launches=2")
    with pytest.raises(AttributeError):
        _ = done.lunches


# Devices -------------------------------------------------------------------------------------------------------------


def test_two_devices():
    assert runtime.getDeviceCount() == 2
    assert runtime.getDeviceProperties(1)["name"] == b"emulated on a CPU"
    with pytest.raises(CUDARuntimeError, match="cudaErrorInvalidDevice"):
        cupy.cuda.Device(2).use()


def test_creation_and_computation_on_the_current_device():
    with cupy.cuda.Device(1):
        a = cupy.arange(6.0).reshape(2, 3)
        b = (a @ a.T).sum(axis=0) + cupy.asarray([1.0, 2.0])
    assert a.device.id == b.device.id == 1
    assert runtime.getDevice() == 0
    np.testing.assert_array_equal(b.get(), [20.0, 66.0])


def test_between_devices(x):
    with emulate.counting() as there, cupy.cuda.Device(1):
        y = cupy.asarray(x)
    with emulate.counting() as back:
        z = cupy.asarray(y)
    assert (y.device.id, z.device.id) == (1, 0)
    assert without_mallocs(there) == without_mallocs(back) == counted(device_to_device=1)
    np.testing.assert_array_equal(z.get(), np.ones((3, 3)))


@pytest.fixture
def other():
    with cupy.cuda.Device(1):
        return cupy.ones((3, 3))


def test_a_kernel_that_mixes_devices_raises(x, other):
    with pytest.raises(ValueError, match="different from the current device"):
        x + other
    with pytest.raises(ValueError, match="different from the current device"):
        other * 2


def test_a_product_that_mixes_devices_raises(x, other):
    with emulate.counting() as done, pytest.raises(cupy.cuda.cublas.CUBLASError, match="EXECUTION_FAILED"):
        x @ other  # CuPy itself does not notice
    assert done.foreign == 1
    with emulate.counting() as done, pytest.raises(cupy.cuda.cublas.CUBLASError, match="EXECUTION_FAILED"):
        other @ other
    assert done.foreign == 2


def test_an_event_of_another_device_raises(x):
    with cupy.cuda.Device(1):
        event = cupy.cuda.Event()
    with pytest.raises(CUDARuntimeError, match="of device 1, used on device 0"):
        event.record()


# Memory --------------------------------------------------------------------------------------------------------------


def test_out_of_memory(x):
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    free, total = runtime.memGetInfo()
    in_use = total - free
    with emulate.memory_limit(in_use + 2**20):
        assert runtime.memGetInfo() == (2**20, in_use + 2**20)
        kept = cupy.zeros(2**19, dtype="uint8")
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match="Out of memory allocating 1,048,576 bytes"):
            cupy.zeros(2**20, dtype="uint8")
        del kept
        cupy.zeros(2**20, dtype="uint8")  # the pool gives back what it kept, and there is room
    cupy.zeros(2**21, dtype="uint8")


def test_the_limit_is_of_each_device(x):
    with emulate.memory_limit(2**20), cupy.cuda.Device(1):
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.zeros(2**19, dtype="uint8")
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
            cupy.zeros(2**21, dtype="uint8")


def test_new_memory_holds_nan():
    unpooled = cupy.cuda.MemoryPointer(cupy.cuda.Memory(800), 0)
    assert np.isnan(cupy.ndarray(100, memptr=unpooled).get()).all()


def test_copies_are_checked(x):
    with pytest.raises(CUDARuntimeError, match="runs over the end"):
        runtime.memcpy(x.data.ptr, x.data.ptr, 2**40, runtime.memcpyDeviceToDevice)
    host = np.ones(3)
    with pytest.raises(CUDARuntimeError, match="a copy of kind 1 between addresses of kind 2"):
        runtime.memcpy(host.ctypes.data, x.data.ptr, 24, runtime.memcpyHostToDevice)
    with pytest.raises(CUDARuntimeError, match="freed twice"):
        runtime.free(x.data.ptr + 8)


# dlx -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("selector", ["cupy", "cupy:1"])
def test_dlx_trains_as_on_numpy(selector, dtype, tolerance, rng):
    X, y = rng.standard_normal((256, 64)), rng.integers(0, 10, 256)
    trained = [
        dlx.fit(X, y, (64, 32, 10), epochs=1, batch_size=32, dtype=dtype, rng=3, backend=backend)
        for backend in ("numpy", selector)
    ]
    for expected, found in zip(*(net.params for net in trained), strict=True):
        for one, other in zip(expected, found, strict=True):
            assert other.device.id == int(selector.partition(":")[2] or 0)
            np.testing.assert_allclose(cupy.asnumpy(other), one, rtol=0, atol=tolerance)
