"""CuPy's operations on the emulated runtime against NumPy's: those that dlx uses, and their relatives."""

import cupy
import cupy.cublas
import cupyx.scipy.special
import numpy as np
import pytest
import scipy.special

from cupy_on_cpu import emulate

rng = np.random.default_rng(7)
A, B, ROW = rng.standard_normal((5, 7)), rng.standard_normal((7, 3)), rng.standard_normal((1, 7))
WIDE = rng.standard_normal((300, 70))  # more rows than a block of the product, more columns than a warp
STACK, STACKS = rng.standard_normal((4, 5, 7)), rng.standard_normal((2, 4, 7, 3))
I, J = rng.integers(-9, 9, (5, 7), dtype=np.int32), rng.integers(1, 9, (5, 7), dtype=np.int32)
LABELS = np.asarray([2, 0, 1, 1, 2])
ODD = np.asarray([[np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0]])

# name: (function of the library and its arrays, the arrays). Floating arrays are tried in float32 and in float64.
FLOATING = {
    "add": (lambda xp, a, b: a + b, A, ROW),
    "subtract": (lambda xp, a, b: a[:, :1] - b, A, ROW),
    "multiply a scalar": (lambda xp, a: 2 * a * 0.5, A),
    "divide": (lambda xp, a, b: a / (1 + b * b), A, ROW),
    "power": (lambda xp, a: (a * a) ** 1.5 + a**2 + a**3, A),
    "floor divide and remainder": (lambda xp, a, b: a // b + a % b, A, ROW),
    "exp": (lambda xp, a: xp.exp(a) + xp.expm1(a) + xp.exp2(a), A),
    "log": (lambda xp, a: xp.log(abs(a)) + xp.log1p(abs(a)) + xp.log2(abs(a)) + xp.log10(abs(a)), A),
    "hyperbolic": (lambda xp, a: xp.tanh(a) + xp.sinh(a) - xp.cosh(a), A),
    "trigonometric": (lambda xp, a: xp.sin(a) + xp.cos(a) * xp.arctan2(a, 2 * a), A),
    "sqrt": (lambda xp, a: xp.sqrt(xp.abs(a)) + xp.square(a), A),
    "logaddexp": (lambda xp, a, b: xp.logaddexp(a, b), A, ROW),
    "rounding": (lambda xp, a: xp.floor(a) + 2 * xp.ceil(a) + 4 * xp.rint(a) + 8 * xp.trunc(a), A),
    "sign": (lambda xp, a: xp.sign(a) + xp.copysign(2.0, a), A),
    "maximum": (lambda xp, a: xp.minimum(xp.maximum(a, -1), 1), A),
    "maximum of NaN": (lambda xp, a: xp.stack([xp.maximum(a, 0), xp.minimum(a, 0)]), ODD),
    "clip": (lambda xp, a: xp.clip(a, -1, 1), A),
    "where": (lambda xp, a: xp.where(a > 0, a, 0.1 * a), A),
    "comparisons": (lambda xp, a, b: xp.stack([a < b, a <= b, a > b, a >= b, a == a, a != a]), A, ROW),
    "isfinite": (lambda xp, a: xp.stack([xp.isfinite(a), xp.isnan(a), xp.isinf(a)]), ODD),
    "all and any": (lambda xp, a: xp.stack([xp.all(a == a), xp.any(a != a), xp.all(a > 0)]), A),
    "sum": (lambda xp, a: a.sum(), WIDE),
    "sum over rows": (lambda xp, a: xp.sum(a, axis=0), WIDE),
    "sum over columns, kept": (lambda xp, a: xp.sum(a, axis=1, keepdims=True), WIDE),
    "sum over two axes": (lambda xp, a: xp.sum(a, axis=(0, 2)), STACK),
    "sum over the middle": (lambda xp, a: xp.sum(a, axis=1, keepdims=True), STACK),
    "sum of a view": (lambda xp, a: xp.sum(a[::2, ::-3].T, axis=0), WIDE),
    "mean": (lambda xp, a: xp.mean(a, axis=0), WIDE),
    "var and std": (lambda xp, a: xp.var(a, axis=0) + xp.std(a, axis=0, ddof=1), WIDE),
    "max and min": (lambda xp, a: xp.max(a, axis=1) - xp.min(a, axis=1), WIDE),
    "prod": (lambda xp, a: xp.prod(a, axis=1), A),
    "argmax and argmin": (lambda xp, a: xp.argmax(a, axis=1) - xp.argmin(a, axis=1), WIDE),
    "norm": (lambda xp, a: xp.linalg.norm(a), WIDE),
    "cumsum": (lambda xp, a: xp.cumsum(a, axis=0) + xp.cumsum(a).reshape(a.shape), A),
    "take": (lambda xp, a, i: xp.take(a, i, axis=0), A, LABELS),
    "index by an array": (lambda xp, a, i: a[i], A, LABELS),
    "slice": (lambda xp, a: a[1:4, ::-2], A),
    "reshape": (lambda xp, a: xp.reshape(a.T, (5, -1)), A),
    "ravel a view": (lambda xp, a: a[:, ::2].ravel(), A),
    "expand and broadcast": (lambda xp, a: xp.broadcast_to(a[:, None, :], (5, 2, 7)) + 0, A),
    "concatenate": (lambda xp, a: xp.concatenate([a, 2 * a], axis=1), A),
    "stack": (lambda xp, a: xp.stack([a, 2 * a], axis=1), A),
    "swap axes": (lambda xp, a: xp.moveaxis(a, 0, 2) + xp.transpose(a, (1, 2, 0)), STACK),
    "pad, roll, repeat": (lambda xp, a: xp.repeat(xp.roll(xp.pad(a, 1), 2, axis=0), 2, axis=1), A),
    "one-hot": (lambda xp, a, i: (i[:, None] == xp.arange(3)).astype(a.dtype), A, LABELS),
    "creation": (lambda xp, a: xp.eye(3, dtype=a.dtype) + xp.full((3, 3), 2.5, a.dtype) - xp.ones_like(a[:3, :3]), A),
    "linspace": (lambda xp, a: xp.linspace(0, 1, 5, dtype=a.dtype), A),
    "matmul": (lambda xp, a, b: a @ b, A, B),
    "matmul, transposed": (lambda xp, a, b: b.T @ a.T + (a @ b).T, A, B),
    "matmul, both ways": (lambda xp, a: a.T @ a, WIDE),
    "matmul, large": (lambda xp, a: a @ a.T, WIDE),
    "matmul, strided": (lambda xp, a: a[:, ::2] @ a[:, ::2].T, A),
    "matmul, reversed": (lambda xp, a, b: a[::-1] @ b[:, ::-1], A, B),
    "matmul, one row": (lambda xp, a: a[:1] @ a.T, A),
    "matmul, one element": (lambda xp, a: a[:1] @ a[1:2].T, A),
    "matmul, empty": (lambda xp, a: xp.concatenate([a[:0] @ a.T, a[:, :0] @ a[:, :0].T]), A),
    "matmul, vectors": (lambda xp, a: xp.stack([a[0] @ a[1], (a @ a[0])[2], (a[:, 0] @ a)[3]]), A),
    "matmul, batched": (lambda xp, a, b: a @ b[0], STACK, STACKS),
    "matmul, batched and transposed": (lambda xp, a: xp.swapaxes(a, 1, 2) @ a, STACK),
    "matmul, batch by matrix": (lambda xp, a, b: a @ b, STACK, B),
    "matmul, matrix by batch": (lambda xp, a, b: a @ b, A, STACKS),
    "matmul, broadcast batches": (lambda xp, a, b: a @ b, STACK, STACKS),
    "matmul, a batch of one": (lambda xp, a, b: a[:1] @ b[0], STACK, STACKS),
    "dot and tensordot": (lambda xp, a, b: a.dot(b) + xp.tensordot(a, b, axes=1), A, B),
    "tensordot over two axes": (lambda xp, a: xp.tensordot(a, a, axes=([0, 2], [0, 2])), STACK),
    "inner, outer": (lambda xp, a: xp.outer(a[0], a[1]) + xp.inner(a[0], a[1]), A),
    "einsum": (lambda xp, a, b: xp.einsum("nij,jk->nik", a, b), STACK, B),
}
OTHER = {  # results are the same to the last bit
    "int32 multiply wraps": (lambda xp, i: i * 0x3FFFFFFF * i, I),
    "int32 add wraps": (lambda xp, i: i + xp.asarray(2**31 - 1, dtype=xp.int32), I),
    "shifts": (lambda xp, i, j: (i << j) ^ (i >> 2), I, J),
    "uint32 hash": (lambda xp, i: ((i.astype(xp.uint32) ^ (i.astype(xp.uint32) >> 16)) * 0x45D9F3B) >> 7, I),
    "bits": (lambda xp, i, j: (i & j) | (~i ^ j), I, J),
    "int division": (lambda xp, i, j: i // j + i % j, I, J),
    "int matmul": (lambda xp, i, j: i @ j.T, I, J),
    "int sum": (lambda xp, i: xp.sum(i, axis=0), I),
    "int maximum": (lambda xp, i, j: xp.maximum(i, j) - xp.minimum(i, 3), I, J),
    "astype": (lambda xp, i: i.astype(xp.float32).astype(xp.int64).astype(xp.uint8), I),
    "bool": (lambda xp, i: ~(i > 0) & (i < 5) | (i == 7), I),
    "count_nonzero": (lambda xp, i: xp.count_nonzero(i > 0, axis=1), I),
    "mask": (lambda xp, i: i[i > 0], I),
    "nonzero": (lambda xp, i: xp.nonzero(i > 0)[1], I),
    "half": (lambda xp, a: a.astype(xp.float16), A),
    "half arithmetic": (lambda xp, a: a.astype(xp.float16) * xp.float16(1 / 3) + a.astype(xp.float16), A),
    "half subnormals": (lambda xp, a: (a * 1e-6).astype(xp.float16), A),
    "half overflow": (lambda xp, a: (a * 65504).astype(xp.float16).astype(xp.float64), A),
}


def both(function, arrays):
    with np.errstate(all="ignore"):
        expected = np.asarray(function(np, *arrays))
    found = function(cupy, *[cupy.asarray(array) for array in arrays])
    assert isinstance(found, cupy.ndarray)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    return cupy.asnumpy(found), expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FLOATING)
def test_floating(name, dtype):
    function, *arrays = FLOATING[name]
    arrays = [array.astype(dtype) if array.dtype.kind == "f" else array for array in arrays]
    found, expected = both(function, arrays)
    tolerance = {"float32": 2e-5, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # NumPy's, of what should overflow
@pytest.mark.parametrize("name", OTHER)
def test_other(name):
    function, *arrays = OTHER[name]
    np.testing.assert_array_equal(*both(function, arrays))


def test_half_matmul():
    found, expected = both(lambda xp, a, b: a @ b, [A.astype("float16"), B.astype("float16")])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blas_of_vectors(dtype):
    a, x, y = (cupy.asarray(array, dtype=dtype) for array in (A, ROW[0], LABELS))
    along, across, product = cupy.ones_like(y), cupy.ones_like(x), cupy.empty((), dtype=dtype)
    cupy.cublas.gemv("N", 2.0, a, x, 3.0, along)
    cupy.cublas.gemv("T", 1.0, a, y, 0.0, across)
    cupy.cublas.dot(x, x, product)
    cupy.cublas.ger(2.0, y, x, a)
    found = [along, across, product, a]
    expected = [2 * A @ ROW[0] + 3, LABELS @ A, ROW[0] @ ROW[0], A + 2 * np.outer(LABELS, ROW[0])]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.get(), other, rtol=1e-5, atol=1e-5)


def test_special_functions():
    found = cupyx.scipy.special.erf(cupy.asarray(A)), cupyx.scipy.special.gammaln(cupy.asarray(A * A))
    expected = scipy.special.erf(A), scipy.special.gammaln(A * A)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.get(), other, rtol=1e-12)


def test_complex():
    found, expected = both(lambda xp, a, b: xp.exp(1j * a) * (a + 2j) / (1 + b) + xp.abs(a - 1j), [A, A * A])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_in_place():
    a = cupy.asarray(A)
    view, address = a[1:4], a.data.ptr
    a += 1
    view *= cupy.asarray(ROW)
    view[:, 0] = 0
    a[0, 0] = 5
    expected = A + 1
    expected[1:4] *= ROW
    expected[1:4, 0] = 0
    expected[0, 0] = 5
    assert a.data.ptr == address
    np.testing.assert_allclose(a.get(), expected, rtol=1e-15)


def test_add_at():
    a = cupy.zeros((3, 7), dtype="float32")
    cupy.add.at(a, cupy.asarray(LABELS), cupy.asarray(I.astype("float32")))
    expected = np.zeros((3, 7), dtype="float32")
    np.add.at(expected, LABELS, I.astype("float32"))
    np.testing.assert_array_equal(a.get(), expected)


# Fused functions: one launch each ------------------------------------------------------------------------------------


def adam(w, g, m, v, rate, b1, c1):
    m = b1 * m + c1 * g
    v = 0.99 * v + 0.01 * g * g
    return w - rate * m / (xp_of_fuse.sqrt(v) + 1e-8), m, v


xp_of_fuse = np


def test_fuse_with_several_outputs(monkeypatch):
    operands = [A, A + 1, 0 * A, A * A]
    expected = adam(*operands, 0.1, 0.9, 1 - 0.9)
    monkeypatch.setitem(globals(), "xp_of_fuse", cupy)
    fused = cupy.fuse(kernel_name="test_adam")(adam)
    operands = [cupy.asarray(operand) for operand in operands]
    found = fused(*operands, 0.1, 0.9, 1 - 0.9)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.get(), other, rtol=1e-12)
    with emulate.counting() as done:
        fused(*operands, 0.2, 0.8, 1 - 0.8)  # other scalars: nothing is compiled again
    assert (done.launches, done.kernels) == (1, {"test_adam": 1})


def test_fuse_in_place_and_broadcasting():
    @cupy.fuse(kernel_name="test_bias")
    def bias(z, b):
        z += b
        return cupy.maximum(z, 0)

    z = cupy.asarray(A)
    address = z.data.ptr
    found = bias(z, cupy.asarray(ROW))
    assert z.data.ptr == address
    np.testing.assert_allclose(z.get(), A + ROW, rtol=1e-15)
    np.testing.assert_allclose(found.get(), np.maximum(A + ROW, 0), rtol=1e-15)


def test_fuse_reduction():
    @cupy.fuse(kernel_name="test_squares")
    def squares(z):
        return cupy.sum(z * z, axis=1)

    np.testing.assert_allclose(squares(cupy.asarray(WIDE)).get(), (WIDE * WIDE).sum(1), rtol=1e-12)


# Kernels of one's own: barriers, shuffles, shared memory --------------------------------------------------------------


def test_barriers():
    kernel = cupy.RawKernel(
        r"""
        extern "C" __global__ void reverse(const float* x, float* y, int n) {
            extern __shared__ float held[];
            int i = threadIdx.x;
            if (i < n) held[i] = x[i];
            __syncthreads();
            if (i < n) y[i] = held[n - 1 - i];
        }""",
        "reverse",
    )
    x, y = cupy.arange(100, dtype="float32"), cupy.empty(100, dtype="float32")
    kernel((1,), (128,), (x, y, 100), shared_mem=400)
    np.testing.assert_array_equal(y.get(), np.arange(100, dtype="float32")[::-1])


def test_shuffles():
    kernel = cupy.RawKernel(
        r"""
        extern "C" __global__ void total(const int* x, int* y) {
            int sum = x[threadIdx.x];
            for (int step = 16; step; step >>= 1) sum += __shfl_down_sync(0xffffffff, sum, step);
            __shared__ int warps[4];
            if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
            __syncthreads();
            if (threadIdx.x < 4) {  // a part of a warp goes on alone
                int all = warps[threadIdx.x];
                all += __shfl_xor_sync(0xf, all, 2, 4);
                all += __shfl_xor_sync(0xf, all, 1, 4);
                if (threadIdx.x == 3) y[0] = all;
            }
        }""",
        "total",
    )
    y = cupy.zeros(1, dtype="int32")
    kernel((1,), (128,), (cupy.arange(128, dtype="int32"), y))
    assert int(y[0]) == 128 * 127 // 2


def test_deadlock_is_an_error():
    kernel = cupy.RawKernel(
        r"""
        extern "C" __global__ void stuck(int* x) {
            if (threadIdx.x < 16) __syncwarp(); else __syncthreads();
        }""",
        "stuck",
    )
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="different barriers"):
        kernel((1,), (32,), (cupy.zeros(1, dtype="int32"),))
    assert int(cupy.arange(100).sum()) == 4950  # and the next kernel runs


def test_every_kernel_was_accepted_by_nvrtc():
    cupy.ones(3)
    report = emulate.nvrtc_report()
    assert report.kernels == report.sm_80 == report.sm_90 > 0
