"""Devices that work as late as they may: missing waits and events, and memory that is used again too early, show."""

import cupy
import numpy as np
import pytest

import dlx
from cupy_on_cpu import emulate

runtime = cupy.cuda.runtime


@pytest.fixture(autouse=True)
def asynchronous():
    with emulate.asynchronous():
        yield


@pytest.fixture
def streams():
    return [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]


def pinned(values):
    array = np.frombuffer(cupy.cuda.alloc_pinned_memory(values.nbytes), values.dtype, values.size)
    array[:] = values
    return array


def launched(function):
    """How many kernels have run when the function has returned."""
    with emulate.counting() as done:
        function()
    return sum(done.kernels.values())


WAITS = {
    "the stream": lambda stream, event: stream.synchronize(),
    "an event": lambda stream, event: event.synchronize(),
    "the device": lambda stream, event: cupy.cuda.Device().synchronize(),
    "free": lambda stream, event: runtime.free(0),
}


@pytest.mark.parametrize("name", WAITS)
def test_work_is_done_when_it_is_waited_for(name, streams):
    x, event = cupy.zeros(3), cupy.cuda.Event()
    cupy.cuda.Device().synchronize()

    def work():
        with streams[0]:
            cupy.add(x, 1, x)
            event.record()

    assert launched(work) == 0
    assert launched(streams[1].synchronize) == 0
    assert launched(lambda: WAITS[name](streams[0], event)) == 1
    np.testing.assert_array_equal(x.get(), np.ones(3))


def test_who_asks_hears_not_yet_once(streams):
    with streams[0]:
        x = cupy.zeros(3) + 1
        event = cupy.cuda.Event()
        event.record()
    assert (event.done, event.done, streams[0].done) == (False, True, True)
    with streams[0]:
        x += 1
    assert (streams[0].done, streams[0].done) == (False, True)
    assert float(x[0]) == 2


@pytest.mark.parametrize("with_event", [True, False])
def test_two_streams_need_an_event(with_event, streams):
    x, y = cupy.zeros(3), cupy.zeros(3)
    cupy.cuda.Device().synchronize()
    with streams[0]:
        x += 1
        event = streams[0].record()
    with streams[1]:
        if with_event:
            streams[1].wait_event(event)
        cupy.multiply(x, 2, y)
        found = y.get()
    np.testing.assert_array_equal(found, np.full(3, 2.0 if with_event else 0.0))


@pytest.mark.parametrize("blocking", [True, False])
def test_the_default_stream_and_a_blocking_one_wait_for_each_other(blocking):
    x = cupy.zeros(3)
    cupy.cuda.Device().synchronize()
    x += 1
    with cupy.cuda.Stream(non_blocking=not blocking):
        x *= 10
        found = x.get()
    assert found[0] == (10 if blocking else 0)
    x += 1
    assert float(x[0]) == (11 if blocking else 2)


@pytest.mark.parametrize("kind", ["pinned", "pageable"])
def test_a_copy_to_the_device_reads_pinned_memory_late(kind, streams):
    host = np.ones(4) if kind == "pageable" else pinned(np.ones(4))
    x = cupy.zeros(4)
    cupy.cuda.Device().synchronize()
    with streams[0]:
        x.data.copy_from_host_async(host.ctypes.data, 32)
        host[:] = 7  # too early, but for what CUDA takes before it returns
        found = x.get()
    np.testing.assert_array_equal(found, np.full(4, 1.0 if kind == "pageable" else 7.0))


@pytest.mark.parametrize("kind", ["pinned", "pageable"])
def test_a_copy_to_the_host_fills_pinned_memory_late(kind, streams):
    host = np.zeros(4) if kind == "pageable" else pinned(np.zeros(4))
    with streams[0]:
        x = cupy.ones(4)
        x.get(out=host, blocking=False)
    assert host.any() == (kind == "pageable")
    streams[0].synchronize()
    assert host.all()


def test_launches_of_a_graph_are_in_the_order_of_the_stream(streams):
    stream, t, out = streams[0], cupy.zeros(1), cupy.zeros(1)
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        t += 1
        cupy.add(out, t, out)
        graph = stream.end_capture()
        for _ in range(4):
            graph.launch()
        out *= 2
    with emulate.counting() as done:
        assert float(out[0]) == 0  # on the default stream: it has waited for nothing
        stream.synchronize()
    assert (done.nodes, float(out[0])) == (8, 20)


def test_memory_that_another_stream_still_reads(streams):
    """What CuPy's pool keeps for a stream is given out again on it, whoever else works on it."""
    with streams[0]:
        x = cupy.ones(1000)
        event = streams[0].record()
    with streams[1]:
        streams[1].wait_event(event)
        y = x + 0
    del x
    with streams[0]:
        z = cupy.full(1000, 5.0)
        streams[0].synchronize()
    streams[1].synchronize()
    assert z.all()
    assert float(y[0]) == 5


def test_errors_come_with_the_wait(streams):
    kernel = cupy.RawKernel(
        'extern "C" __global__ void stuck(int* x) { if (threadIdx.x) __syncthreads(); else __syncwarp(3); x[0] = 1; }',
        "stuck",
    )
    x = cupy.zeros(1, "int32")
    with streams[0]:
        kernel((1,), (2,), (x,))
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorLaunchFailure"):
        streams[0].synchronize()


@pytest.mark.parametrize("how", [{}, {"dropout": 0.2, "validation": 0.2}, {"stream": True}, {"dtype": "float64"}])
@pytest.mark.parametrize("current", [None, "a stream"])
def test_dlx_waits_for_what_it_reads(how, current, rng):
    X, y = rng.standard_normal((300, 20)), rng.integers(0, 3, 300)
    how = {"layer_dims": (20, 16, 3), "batch_size": 60, "epochs": 3, "rng": 0, "backend": "cupy"} | how
    late = None
    with cupy.cuda.Stream(non_blocking=True) if current else cupy.cuda.Stream.null:
        late = dlx.fit(X, y, **how)
        probabilities = late.predict_proba(X)
        params = [cupy.asnumpy(each) for layer in late.params for each in layer]
    emulate._variable("asynchronous").value = 0
    net = dlx.fit(X, y, **how)
    assert net.history["loss"] == late.history["loss"]
    np.testing.assert_array_equal(net.predict_proba(X), probabilities)
    for each, expected in zip(params, (each for layer in net.params for each in layer), strict=True):
        np.testing.assert_array_equal(each, cupy.asnumpy(expected))
