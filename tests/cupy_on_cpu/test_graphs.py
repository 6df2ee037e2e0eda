"""Stream capture and graphs: what is recorded, what a launch does, what a capture refuses."""

import concurrent.futures
import contextlib
import ctypes
import gc
import mmap

import cupy
import numpy as np
import pytest
from cuda import pathfinder

from cupy_on_cpu import emulate

runtime = cupy.cuda.runtime
CUDARuntimeError = runtime.CUDARuntimeError
KERNEL, MEMCPY, MEMSET, HOST = range(4)  # of `enum CUgraphNodeType`


@pytest.fixture
def stream():
    return cupy.cuda.Stream(non_blocking=True)


@pytest.fixture
def x():
    return cupy.arange(4.0)


@contextlib.contextmanager
def capturing(stream):
    """A list into which the graph of the block is put; the block works on the stream."""
    made = []
    with stream:
        stream.begin_capture()
        yield made
        made.append(stream.end_capture())


def capture(stream, function):
    with capturing(stream) as made:
        function()
    return made[0]


def node_types(graph):
    """As a program asks the driver for them."""
    cuda, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_size_t()
    assert cuda.cuGraphGetNodes(ctypes.c_void_p(graph.graph), None, ctypes.byref(count)) == 0
    nodes, types = (ctypes.c_void_p * count.value)(), []
    assert cuda.cuGraphGetNodes(ctypes.c_void_p(graph.graph), nodes, ctypes.byref(count)) == 0
    for node in nodes:
        kind = ctypes.c_int()
        assert cuda.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)) == 0
        types.append(kind.value)
    return types


# What is recorded, and what a launch does ----------------------------------------------------------------------------


def copy_of(x, out):
    out.data.copy_from_device_async(x.data, x.nbytes, cupy.cuda.get_current_stream())


WORK = {  # from x to out, the names of the nodes, and what out is to be
    "a ufunc": (
        lambda x, out: cupy.multiply(x, 2.0, out),
        ["cupy_multiply__float64_float_float64"],
        lambda x: x * 2,
    ),
    "a reduction": (lambda x, out: cupy.sum(x, axis=0, out=out[0]), ["cupy_sum"], lambda x: [x.sum(), -1, -1, -1]),
    "a fused kernel": (
        cupy.fuse(kernel_name="in_place")(lambda x, out: cupy.add(x * x, 3.0, out)),
        ["in_place"],
        lambda x: x * x + 3,
    ),
    "a fill": (lambda x, out: out.fill(7), ["cupy_fill"], lambda x: np.full(4, 7)),
    "a memset": (lambda x, out: out.data.memset_async(0, out.nbytes), ["memset"], np.zeros_like),
    "a copy": (copy_of, ["memcpy_device_to_device"], np.copy),
    "several": (
        lambda x, out: cupy.add(cupy.cumsum(x * x), cupy.zeros(4), out),
        ["cupy_multiply__float64_float64_float64", "cupy_scan_btree", "memset", "cupy_add__float64_float64_float64"],
        lambda x: np.cumsum(x * x),
    ),
}


@pytest.mark.parametrize("name", WORK)
def test_work_is_recorded_and_done_at_each_launch(name, stream, x):
    work, nodes, expected = WORK[name]
    out = cupy.full(4, -1.0)
    pool = cupy.cuda.MemoryPool()  # of the graph's own: what it computes in passing lies where nobody else writes
    with cupy.cuda.using_allocator(pool.malloc), emulate.counting() as recording:
        graph = capture(stream, lambda: work(x, out))
    assert recording.total._replace(mallocs=0) == emulate.Counters(*(0,) * len(emulate.Counters._fields))
    assert recording.kernels == {}
    assert emulate.nodes(graph) == nodes
    types = [MEMCPY if node.startswith("memcpy") else MEMSET if node == "memset" else KERNEL for node in nodes]
    assert node_types(graph) == types
    np.testing.assert_array_equal(out.get(), np.full(4, -1.0))  # nothing was done
    for values in (np.arange(4.0), np.array([3.0, 1.0, 4.0, 1.0])):
        x.set(values)
        out.fill(-1)
        with emulate.counting() as done:
            graph.launch(stream)
        np.testing.assert_array_equal(out.get(), expected(values))
        assert done.total == emulate.Counters(*(0,) * 8, graph_launches=1, nodes=len(nodes), refused=0)
        assert sum(done.kernels.values()) == types.count(KERNEL)


def test_launches_follow_one_another(stream, x):
    graph = capture(stream, lambda: cupy.add(x, 1.0, x))
    emulate.reset()
    for _ in range(5):
        graph.launch(stream)
    np.testing.assert_array_equal(x.get(), np.arange(4.0) + 5)
    assert emulate.kernels() == {"cupy_add__float64_float_float64": 5}
    assert emulate.graphs() == [emulate.Launched(["cupy_add__float64_float_float64"], 5)]
    emulate.reset()
    assert emulate.graphs() == []


def test_a_launch_has_the_values_of_the_capture(stream, x):
    factor, out = 2.0, cupy.zeros(4)
    kernel = cupy.RawKernel(
        'extern "C" __global__ void scale(const double* x, double factor, double* out, char plus) '
        "{ out[threadIdx.x] = x[threadIdx.x] * factor + plus; }",
        "scale",
    )
    graph = capture(stream, lambda: kernel((1,), (4,), (x, factor, out, np.int8(3))))
    factor = 5.0
    kernel((1,), (4,), (x, factor, cupy.zeros(4), np.int8(9)))
    graph.launch(stream)
    np.testing.assert_array_equal(out.get(), np.arange(4.0) * 2 + 3)


def test_a_kernel_with_barriers(stream):
    values = np.random.default_rng(0).standard_normal((300, 40))
    x, out = cupy.asarray(values), cupy.zeros(40)
    graph = capture(stream, lambda: cupy.max(x, axis=0, out=out))
    x *= -1
    graph.launch(stream)
    np.testing.assert_array_equal(out.get(), (-values).max(axis=0))


def test_what_runs_outside_of_the_capture_runs_at_once(stream, x):
    with capturing(stream) as made:
        x += 1
        with cupy.cuda.Stream.null, emulate.counting() as done:
            y = cupy.ones(3) * 2
            assert float(y.sum()) == 6
    assert done.launches == 3
    assert emulate.nodes(made[0]) == ["cupy_add__float64_float_float64"]


def test_handles_as_the_runtime_gives_them(stream, x):
    runtime.streamBeginCapture(stream.ptr, runtime.streamCaptureModeRelaxed)
    with stream:
        x *= 3
        assert runtime.streamIsCapturing(stream.ptr)
    graph = runtime.streamEndCapture(stream.ptr)
    assert not runtime.streamIsCapturing(stream.ptr)
    executable = runtime.graphInstantiate(graph)
    assert emulate.nodes(graph) == emulate.nodes(executable)
    runtime.graphDestroy(graph)  # the executable has what it needs
    runtime.graphUpload(executable, stream.ptr)
    runtime.graphLaunch(executable, stream.ptr)
    runtime.graphLaunch(executable, 0)
    np.testing.assert_array_equal(x.get(), np.arange(4.0) * 9)
    runtime.graphExecDestroy(executable)
    for call in (lambda: runtime.graphLaunch(executable, stream.ptr), lambda: runtime.graphExecDestroy(executable)):
        with pytest.raises(CUDARuntimeError, match="no such graph"):
            call()
    with pytest.raises(CUDARuntimeError, match="no such graph"):
        runtime.graphInstantiate(graph)
    count = ctypes.c_size_t()
    assert ctypes.CDLL("libcuda.so.1").cuGraphGetNodes(ctypes.c_void_p(graph), None, ctypes.byref(count)) != 0


def test_a_graph_belongs_to_its_device(stream, x):
    graph = capture(stream, lambda: cupy.add(x, 1.0, x))
    with cupy.cuda.Device(1):
        there = cupy.cuda.Stream(non_blocking=True)
        with pytest.raises(CUDARuntimeError, match="a graph of device 0, launched on device 1"):
            graph.launch(there)
        with pytest.raises(CUDARuntimeError, match="a stream of device 0, used on device 1"):
            graph.launch(stream)
        y = cupy.zeros(3)
        other = capture(there, lambda: cupy.add(y, 1.0, y))
        other.launch(there)
        np.testing.assert_array_equal(y.get(), np.ones(3))


def test_a_function_of_the_host_is_a_node(stream, x):
    calls = []
    graph = capture(stream, lambda: stream.launch_host_func(calls.append, "now"))
    assert (emulate.nodes(graph), node_types(graph), calls) == (["host"], [HOST], [])
    graph.launch(stream)
    graph.launch(stream)
    assert calls == ["now", "now"]
    stream.launch_host_func(calls.append, "outside")
    assert calls[2:] == ["outside"]


# Products ------------------------------------------------------------------------------------------------------------


class Cublas:
    """A handle of one's own, as a program makes it with ctypes."""

    def __init__(self, stream, workspace=True):
        self.library = ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
        self.handle = ctypes.c_void_p()
        assert self.library.cublasCreate_v2(ctypes.byref(self.handle)) == 0
        assert self.library.cublasSetStream_v2(self.handle, ctypes.c_void_p(stream.ptr)) == 0
        if workspace:
            self.workspace = cupy.empty(1 << 10, "uint8")
            where, size = ctypes.c_void_p(self.workspace.data.ptr), ctypes.c_size_t(self.workspace.nbytes)
            assert self.library.cublasSetWorkspace_v2(self.handle, where, size) == 0

    def product(self, a, b, out, alpha=1.0):
        """out = alpha a b, by rows; the status."""
        real, letter = (ctypes.c_float, "S") if a.dtype == "float32" else (ctypes.c_double, "D")
        address = [ctypes.c_void_p(each.data.ptr) for each in (b, a, out)]
        m, n, k = a.shape[-2], b.shape[-1], a.shape[-1]
        alpha, zero = real(alpha), real(0)
        one, two, three = ((each, width) for each, width in zip(address, (n, k, n), strict=True))
        function = getattr(self.library, f"cublas{letter}gemm" + ("_v2" if a.ndim == 2 else "StridedBatched"))
        if a.ndim == 3:
            one, two, three = (
                (*each, ctypes.c_longlong(size))
                for each, size in zip((one, two, three), (n * k, m * k, m * n), strict=True)
            )
        batches = [a.shape[0]] if a.ndim == 3 else []
        status = function(
            self.handle, 0, 0, n, m, k, ctypes.byref(alpha), *one, *two, ctypes.byref(zero), *three, *batches
        )
        alpha.value = -100.0  # cuBLAS has taken its value
        return status

    def destroy(self):
        assert self.library.cublasDestroy_v2(self.handle) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_product_is_a_kernel_of_the_graph(shape, dtype, stream, rng):
    values = rng.standard_normal((*shape, 5, 4)).astype(dtype), rng.standard_normal((*shape, 4, 6)).astype(dtype)
    a, b = map(cupy.asarray, values)
    out = cupy.zeros((*shape, 5, 6), dtype)
    cublas = Cublas(stream)
    with emulate.counting() as done:
        with capturing(stream) as made:
            assert cublas.product(a, b, out, alpha=2.0) == 0
        assert not out.any()
        b *= 3
        made[0].launch(stream)
    np.testing.assert_allclose(out.get(), 6 * values[0] @ values[1], rtol=0, atol=1e-5)
    assert (done.gemms, done.nodes, emulate.nodes(made[0]), node_types(made[0])) == (0, 1, ["gemm"], [KERNEL])
    with emulate.counting() as done:
        cublas.product(a, b, out)  # on the same stream, that no longer captures
    assert done.gemms == 1
    cublas.destroy()


def test_a_product_in_a_capture_needs_a_workspace(stream, rng, capfd):
    a, out = cupy.ones((5, 5)), cupy.zeros((5, 5))
    cublas = Cublas(stream)
    for wrong in (Cublas(stream, workspace=False), cublas):
        cublas.library.cublasSetStream_v2(cublas.handle, ctypes.c_void_p(stream.ptr))  # takes the workspace away
        with capturing(stream) as made:
            assert wrong.product(a, a, out) != 0
        assert emulate.nodes(made[0]) == []
        assert "needs cublasSetWorkspace, after cublasSetStream" in capfd.readouterr().err
        assert wrong.product(a, a, out) == 0  # outside cuBLAS has one
        wrong.destroy()


def test_cupy_itself_refuses_products_in_a_capture(stream):
    a = cupy.ones((5, 5))
    a @ a
    with capturing(stream) as made, pytest.raises(NotImplementedError, match="cuBLAS API during stream capture"):
        a @ a
    assert emulate.nodes(made[0]) == []


# What a capture refuses ----------------------------------------------------------------------------------------------


def of_the_capture(stream):
    event = cupy.cuda.Event()
    event.record(stream)
    return event


REFUSED = {
    "stream.synchronize": (lambda stream: stream.synchronize(), "cudaErrorStreamCaptureUnsupported"),
    "device.synchronize": (lambda stream: cupy.cuda.Device().synchronize(), "cudaErrorStreamCaptureUnsupported"),
    "event.synchronize": (lambda stream: of_the_capture(stream).synchronize(), "cudaErrorCapturedEvent"),
    "elapsed time": (
        lambda stream: cupy.cuda.get_elapsed_time(of_the_capture(stream), of_the_capture(stream)),
        "cudaErrorCapturedEvent",
    ),
    "an event from outside": (
        lambda stream: stream.wait_event(of_the_capture(cupy.cuda.Stream(non_blocking=True))),
        "cudaErrorStreamCaptureIsolation",
    ),
    "the default stream waits": (
        lambda stream: cupy.cuda.Stream.null.wait_event(of_the_capture(stream)),
        "cudaErrorStreamCaptureImplicit",
    ),
    "a callback": (lambda stream: stream.add_callback(print, None), "cudaErrorStreamCaptureUnsupported"),
    "a graph in a graph": (
        lambda stream: capture(cupy.cuda.Stream(non_blocking=True), lambda: None).launch(stream),
        "cudaErrorStreamCaptureUnsupported",
    ),
}


def refused_whole(stream, x, refuse):
    """What `refuse` does to a capture; the stream must be whole afterwards."""
    before = x.get()
    with stream, emulate.counting() as done:
        stream.begin_capture()
        x += 1
        refuse()
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            x += 1
        with pytest.raises(RuntimeError, match="an error has invalidated the capture"):
            runtime.streamIsCapturing(stream.ptr)
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
        assert not runtime.streamIsCapturing(stream.ptr)
    assert done.refused == 1
    assert done.launches == done.syncs == 0
    np.testing.assert_array_equal(x.get(), before)
    graph = capture(stream, lambda: cupy.add(x, 1.0, x))
    graph.launch(stream)
    stream.synchronize()
    np.testing.assert_array_equal(x.get(), before + 1)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_invalidates_the_capture_and_leaves_the_stream_whole(name, stream, x):
    refused, error = REFUSED[name]

    def refuse():
        with pytest.raises(CUDARuntimeError, match=error):
            refused(stream)

    refused_whole(stream, x, refuse)


@pytest.mark.parametrize("question", [lambda s: s.done, lambda s: of_the_capture(s).done], ids=["stream", "event"])
def test_a_question_is_refused_in_silence(question, stream, x):
    """CuPy asks whether the answer is success, and does not look at which error it is."""
    refused_whole(stream, x, lambda: question(stream))


def test_legacy_default_stream(x):
    blocking = cupy.cuda.Stream()

    def refuse(what):
        with cupy.cuda.Stream.null, pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureImplicit"):
            what()

    for what in (
        lambda: x * 2,
        lambda: runtime.memset(x.data.ptr, 0, 8),
        lambda: runtime.memcpy(x.data.ptr, x.data.ptr + 8, 8, runtime.memcpyDeviceToDevice),
        lambda: cupy.cuda.Stream.null.synchronize(),
        lambda: cupy.cuda.Event().record(),
    ):
        refused_whole(blocking, x, lambda what=what: refuse(what))
        non_blocking = cupy.cuda.Stream(non_blocking=True)
        with capturing(non_blocking) as made, cupy.cuda.Stream.null:
            what()
        assert emulate.nodes(made[0]) == []
        x.set(np.arange(4.0))


@pytest.mark.parametrize("mode", [runtime.streamCaptureModeGlobal, runtime.streamCaptureModeThreadLocal])
def test_other_modes_refuse_what_might_wait(mode, stream):
    cupy.get_default_memory_pool().free_all_blocks()
    for what in (
        lambda: runtime.malloc(1000),
        lambda: runtime.memcpy(0, 0, 0, runtime.memcpyDefault),
        lambda: runtime.hostAlloc(1000, 0),
    ):
        stream.begin_capture(mode)
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
            what()
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()


def test_captures_begin_and_end_where_they_can(stream):
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        stream.end_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
        runtime.streamBeginCapture(0)
    stream.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        stream.begin_capture()
    stream.end_capture()


@pytest.mark.parametrize(
    "moves",
    [
        lambda x: x.get(),
        lambda x: float(x[0]),
        lambda x: bool(x.all()),
        lambda x: x[x > 1],
        lambda x: x.set(np.ones(4)),
        lambda x: cupy.asarray(np.ones(4)),
    ],
)
def test_cupy_itself_refuses_to_move_arrays_in_a_capture(moves, stream, x):
    with capturing(stream), pytest.raises(RuntimeError, match="transfers are disallowed"):
        moves(x)
    x += 1  # the capture is valid: what CuPy refuses never came to CUDA


# Copies that are recorded without a word -----------------------------------------------------------------------------


def copy_async(target, source, size, kind):
    """As CUDA has it: CuPy's own functions refuse it while the current stream captures."""
    runtime.memcpyAsync(target, source, size, kind, cupy.cuda.get_current_stream().ptr)


def test_a_copy_from_the_host_replays_what_lies_there_then(stream, x):
    """The trap: the first launch looks right."""
    host = np.ones(4)
    graph = capture(stream, lambda: copy_async(x.data.ptr, host.ctypes.data, 32, runtime.memcpyHostToDevice))
    assert (emulate.nodes(graph), node_types(graph)) == (["memcpy_host_to_device"], [MEMCPY])
    np.testing.assert_array_equal(x.get(), np.arange(4.0))
    graph.launch(stream)
    np.testing.assert_array_equal(x.get(), np.ones(4))
    host[:] = 5
    graph.launch(stream)
    np.testing.assert_array_equal(x.get(), np.full(4, 5.0))


def test_a_copy_to_the_host_happens_at_the_launch(stream, x):
    host = np.zeros(4)
    graph = capture(stream, lambda: copy_async(host.ctypes.data, x.data.ptr, 32, runtime.memcpyDeviceToHost))
    assert (emulate.nodes(graph), node_types(graph)) == (["memcpy_device_to_host"], [MEMCPY])
    assert not host.any()
    graph.launch(stream)
    np.testing.assert_array_equal(host, np.arange(4.0))


def test_memory_of_the_host_that_is_gone(stream):
    size = 1 << 16
    x = cupy.zeros(size, "uint8")
    host = mmap.mmap(-1, size)
    address = np.frombuffer(host, "uint8").ctypes.data
    graph = capture(stream, lambda: copy_async(x.data.ptr, address, size, runtime.memcpyHostToDevice))
    graph.launch(stream)
    host.close()
    with pytest.raises(CUDARuntimeError, match="the host's memory is gone"):
        graph.launch(stream)


# Forks ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def side():
    return cupy.cuda.Stream(non_blocking=True)


def join(waiting, other):
    waiting.wait_event(of_the_capture(other))


def test_a_capture_spreads_to_a_stream_that_waits_for_it(stream, side, x):
    y, out = cupy.zeros(4), cupy.zeros(4)
    with capturing(stream) as made:
        x += 1
        join(side, stream)
        with side:
            assert runtime.streamIsCapturing(side.ptr)
            cupy.multiply(x, 10.0, y)
        x2 = x * 2
        join(stream, side)
        cupy.add(x2, y, out)
    assert not runtime.streamIsCapturing(side.ptr)
    assert len(emulate.nodes(made[0])) == 4
    for order in ("as recorded", "forks first", "forks last"):
        x.set(np.arange(4.0))
        with emulate.replay_order(order):
            made[0].launch(stream)
        np.testing.assert_array_equal(out.get(), 12 * (np.arange(4.0) + 1))


def test_a_dependency_that_is_missing_shows_in_another_order(stream, side, x):
    found = {}
    out = cupy.zeros(4)
    with capturing(stream) as made:
        join(side, stream)
        with side:
            cupy.multiply(x, 10.0, out)  # reads what the other stream writes, without an event between them
        x += 1
        join(stream, side)
    for order in ("as recorded", "forks first", "forks last"):
        x.set(np.arange(4.0))
        with emulate.replay_order(order):
            made[0].launch(stream)
        found[order] = float(out[0])
    assert found == {"as recorded": 0, "forks first": 10, "forks last": 0} or set(found.values()) == {0, 10}


def test_a_fork_that_is_not_joined(stream, side, x):
    with stream:
        stream.begin_capture()
        join(side, stream)
        with side:
            x += 1
        join(stream, side)
        with side:
            x += 1  # after the join
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnjoined"):
            stream.end_capture()
    for each in (stream, side):
        assert not runtime.streamIsCapturing(each.ptr)
        each.synchronize()
    np.testing.assert_array_equal(x.get(), np.arange(4.0))


def test_a_capture_ends_where_it_began(stream, side):
    stream.begin_capture()
    join(side, stream)
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnmatched"):
        side.end_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()


def test_two_captures_do_not_meet(stream, side):
    stream.begin_capture()
    side.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureMerge"):
        join(side, stream)
    for each in (stream, side):
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            each.end_capture()


def test_an_event_of_a_capture_has_no_time_until_it_is_recorded_again(stream):
    stream.begin_capture()
    event = of_the_capture(stream)
    stream.end_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorCapturedEvent"):
        event.synchronize()
    event.record(stream)
    event.synchronize()
    assert event.done


# Memory --------------------------------------------------------------------------------------------------------------


def test_memory_that_was_freed_is_found_at_the_launch(stream):
    memory = [cupy.cuda.Memory(800)]

    def work():
        x = cupy.ndarray(100, memptr=cupy.cuda.MemoryPointer(memory[0], 0))
        x += 1

    graph = capture(stream, work)
    graph.launch(stream)
    memory.clear()
    taken = [cupy.cuda.Memory(800) for _ in range(20)]  # one of them may lie where x lay
    with pytest.raises(CUDARuntimeError, match=r"cudaErrorIllegalAddress.* works on memory that was freed since"):
        graph.launch(stream)
    assert taken


def test_what_the_pool_gives_out_again_is_written_to(stream):
    """The trap: without a pool of its own a graph writes where somebody else's array lies by now."""
    pool, x = cupy.cuda.MemoryPool(), cupy.ones(1000)
    with cupy.cuda.using_allocator(pool.malloc):
        graph = capture(stream, lambda: (x + 1).sum())
        with stream:
            others = cupy.zeros(1000)
    graph.launch(stream)
    np.testing.assert_array_equal(others.get(), np.full(1000, 2.0))


def test_nothing_is_left_of_graphs(stream, x):
    def once():
        cublas = Cublas(stream)
        side, out = cupy.cuda.Stream(non_blocking=True), cupy.zeros((4, 4))
        with capturing(stream) as made:
            join(side, stream)
            with side:
                x + 1
            cublas.product(out, out, out)
            join(stream, side)
        made[0].launch(stream)
        during = emulate.live()
        cublas.destroy()
        return during

    gc.collect()
    before = emulate.live()
    during = once()
    gc.collect()
    kept = [after - held for after, held in zip(during[:3], before[:3], strict=True)]
    assert kept == [1, 1, 1]
    assert during.cublas_handles == before.cublas_handles + 1
    for _ in range(3):
        once()
    gc.collect()
    assert emulate.live()[:5] == before[:5]
    cupy.get_default_memory_pool().free_all_blocks()
    assert emulate.live().bytes <= before.bytes


def test_threads_capture_beside_one_another(rng):
    values = rng.standard_normal((20, 20))

    def powers(_):
        stream = cupy.cuda.Stream(non_blocking=True)
        pool = cupy.cuda.MemoryPool()
        with cupy.cuda.using_allocator(pool.malloc), stream:
            x, y, cublas = cupy.asarray(values), cupy.eye(20), Cublas(stream)
            z = cupy.empty_like(y)
            stream.synchronize()

            def work():
                cublas.product(x, y, z)
                cupy.multiply(z, 0.1, y)

            graph = capture(stream, work)
            for _ in range(30):
                graph.launch(stream)
            found = y.get()
            cublas.destroy()
        return found

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(powers, range(12)))
    for each in found:
        np.testing.assert_allclose(each, np.linalg.matrix_power(values / 10, 30), rtol=1e-9)
