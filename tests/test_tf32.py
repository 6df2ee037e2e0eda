"""`tf32` means the same on every library: full precision unless it is True, whatever the library's own settings say."""

import contextlib
import copy
import importlib.util
import io
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils._param_validation import InvalidParameterError

import dlx
from conftest import GPUS, INSTALLED, SELECTORS
from dlx.files import container, schema

pytestmark = pytest.mark.filterwarnings("ignore:Please use the new API settings")  # PyTorch 2.9, of its older switch

X = np.linspace(-1, 1, 96, dtype="f4").reshape(24, 4)
Y = X[:, :2] * 2
DIMS = (4, 3, 2)
HOW = {"layer_dims": DIMS, "epochs": 2, "rng": 0}

CHOICE = "'cupy', 'torch:cuda' or 'jax:gpu'"
HINTS = {"torch": "'torch:cuda'", "jax": "'jax:gpu'"}


def refused(text, kind=ValueError):
    return pytest.raises(kind, match=f"^{re.escape(text)}$")


def refusal(selector):
    hint = HINTS.get(selector.partition(":")[0], CHOICE)
    remedy = f"It is a number format of CUDA devices: choose backend={hint}."
    return f"`tf32` must be False on {selector}; got True. {remedy}"


def taken_for_cuda(selector, monkeypatch):
    """The backend with TF32, as if its device were one of CUDA, and all others of its library."""
    kind = type(dlx.get_backend(selector))
    init = kind.__init__

    def on_cuda(self, *arguments, **named):
        init(self, *arguments, **named)
        self.takes_tf32 = True

    monkeypatch.setattr(kind, "__init__", on_cuda)
    return dlx.get_backend(selector, tf32=True)


@pytest.fixture
def gpu(be, monkeypatch):
    """Every backend, with TF32 on a device that is taken for one of CUDA."""
    return taken_for_cuda(be.selector, monkeypatch)


@pytest.fixture(params=[each for each in SELECTORS if each.partition(":")[0] in ("torch", "jax", "cupy")])
def of_devices(request, monkeypatch):
    """A backend of a library that knows CUDA, with TF32."""
    return taken_for_cuda(request.param, monkeypatch)


def fitted(backend="numpy", **named):
    return dlx.fit(X, Y, backend=backend, **HOW, **named)


# -- at the door --


DOORS = {
    "get_backend": lambda at, tf32: dlx.get_backend(at, tf32=tf32),
    "fit": lambda at, tf32: fitted(at, tf32=tf32),
    "find_learning_rate": lambda at, tf32: dlx.find_learning_rate(X, Y, DIMS, updates=20, backend=at, tf32=tf32),
    "L_layer_model": lambda at, tf32: dlx.L_layer_model(X.T, Y.T, DIMS, backend=at, tf32=tf32),
    "Network": lambda at, tf32: dlx.Network([(X[:4, :2], Y[0])], backend=at, tf32=tf32),
    "to": lambda at, tf32: dlx.Network([(X[:4, :2], Y[0])]).to(at, tf32=tf32),
    "load": lambda at, tf32: dlx.load(saved(dlx.Network([(X[:4, :2], Y[0])])), at, tf32=tf32),
    "estimator": lambda at, tf32: dlx.MLPRegressor((3,), max_iter=1, backend=at, tf32=tf32).fit(X, Y),
}
if "torch" in INSTALLED:

    def from_torch(at, tf32):
        import torch

        return dlx.from_torch(torch.nn.Sequential(torch.nn.Linear(4, 2)), loss="squared_error", backend=at, tf32=tf32)

    DOORS["from_torch"] = from_torch


def saved(net):
    stream = io.BytesIO()
    net.save(stream)
    stream.seek(0)
    return stream


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_true_is_refused_where_there_is_no_cuda_device(be, door):
    with contextlib.nullcontext() if be.takes_tf32 else refused(refusal(be.selector)):
        door(be.selector, True)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_false_is_taken_everywhere(be, door):
    door(be.selector, False)
    door(be.selector, np.False_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_true_is_taken_on_cuda_devices(gpu, door):
    door(gpu.selector, True)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("tf32", [1, "True", "high", 0.0])
def test_only_a_bool_is_taken(door, tf32):
    if door is DOORS["estimator"]:
        with pytest.raises(InvalidParameterError, match="The 'tf32' parameter of MLPRegressor must be"):
            door("numpy", tf32)
        return
    with refused(f"`tf32` must be True or False; got {tf32!r}. True is for CUDA devices only.", TypeError):
        door("numpy", tf32)


if "torch" in INSTALLED:

    def test_devices_of_torch_that_are_not_of_cuda():
        """MPS and "meta" have no TF32."""
        import torch

        with refused(refusal("torch:meta")):
            dlx.get_backend("torch:meta", tf32=True)
        kind = type(dlx.get_backend("torch"))
        assert [kind(torch, torch.device(name)).takes_tf32 for name in ("mps", "cuda", "cuda:1")] == [False, True, True]


@pytest.mark.parametrize("how", [{"dtype": "float64"}, {}])
def test_float64_is_refused_with_it(gpu, how):
    """TF32 is about products of float32 arrays."""
    text = "`tf32` must be False in float64; got True. It is for float32 products: pass dtype='float32' with it."
    wide, place = X.astype("f8"), gpu.selector
    for call in (
        lambda: dlx.fit(wide, Y, **HOW, backend=place, tf32=True, **how),
        lambda: dlx.Network([(wide[:4, :2], Y[0])], backend=place, tf32=True, **how),
        lambda: dlx.Network([(wide[:4, :2], Y[0])]).to(place, **how, tf32=True),
        lambda: dlx.MLPRegressor((3,), backend=place, tf32=True, **how).fit(wide, Y),
        lambda: dlx.L_layer_model(wide.T, wide.T, (4, 4), backend=place, tf32=True, **how),
    ):
        with refused(text):
            call()
    assert dlx.fit(wide, Y, **HOW, backend=gpu).tf32  # a Backend may serve both dtypes


# -- the backend --


def test_it_belongs_to_the_backend(gpu):
    plain = dlx.get_backend(gpu.selector)
    assert (plain.tf32, gpu.tf32, gpu.selector) == (False, True, plain.selector)
    assert plain != gpu
    assert hash(plain) != hash(gpu)
    assert repr(gpu) == f"<dlx backend {gpu.selector} in TF32>"
    assert repr(plain) == f"<dlx backend {gpu.selector}>"
    assert gpu.with_tf32(False) == plain == dlx.get_backend(gpu, tf32=False)
    assert plain.with_tf32(True) == gpu == dlx.get_backend(plain, tf32=True) == dlx.get_backend(gpu)
    assert dlx.get_backend(gpu) is gpu
    for again in (pickle.loads(pickle.dumps(gpu)), copy.deepcopy(gpu), gpu.expecting(1e12)):
        assert again == gpu
    if gpu.name in ("cupy", "jax", "torch"):
        assert (gpu.describe()["tf32"], plain.describe()["tf32"]) == ("True", "False")
        assert (gpu.arithmetic()["tf32"], plain.arithmetic()["tf32"]) == ("True", "False")


@pytest.mark.parametrize("how", ["argument", "backend"])
def test_a_training_has_it_from_either_argument(gpu, how):
    net = fitted(gpu.selector, tf32=True) if how == "argument" else fitted(gpu)
    assert net.backend == gpu
    assert net.tf32
    assert repr(net).endswith(f"float32 on {gpu.selector} in TF32>")
    assert fitted(gpu, tf32=False).backend == dlx.get_backend(gpu.selector)
    assert fitted(gpu.selector).tf32 is False


# -- networks and files --


def test_a_network_keeps_it(gpu):
    net = fitted(gpu)
    for again in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), copy.copy(net), net.to(gpu.selector)):
        assert again.tf32
        assert again.backend == gpu
    assert net.to(gpu.selector, tf32=False).tf32 is False
    assert net.to(gpu.with_tf32(False)).tf32 is False
    assert fitted(gpu.selector).to(gpu).tf32


@pytest.mark.parametrize("elsewhere", ["numpy", "strict"])
def test_a_file_keeps_it_for_the_next_cuda_device(of_devices, elsewhere):
    """Loaded on a CPU, a network predicts in full precision, and loses nothing when it is saved from there."""
    gpu = of_devices
    net = fitted(gpu)
    assert dlx.load(saved(net), gpu.selector).backend == gpu
    here = dlx.load(saved(net), elsewhere)
    assert (here.tf32, here.backend) == (True, dlx.get_backend(elsewhere))
    np.testing.assert_allclose(here.predict(X), net.predict(X), rtol=2e-2, atol=1e-2)
    for back in (dlx.load(saved(here), gpu.selector), here.to(gpu.selector), copy.deepcopy(here).to(gpu.selector)):
        assert back.backend == gpu
    again = pickle.loads(pickle.dumps(here))
    assert again.tf32
    assert dlx.load(saved(net), elsewhere, tf32=False).to(gpu.selector).tf32 is False
    assert dlx.load(saved(net), gpu.selector, tf32=False).tf32 is False
    assert dlx.load(saved(net), gpu.with_tf32(False)).tf32 is False
    assert here.to(elsewhere, tf32=False).tf32 is False
    with refused(refusal(dlx.get_backend(elsewhere).selector)):
        dlx.load(saved(net), elsewhere, tf32=True)


def test_a_file_without_it_is_as_before(gpu):
    """The description has the same keys as in files that are older than this argument."""
    for net, keys in ((fitted(gpu.selector), schema.KEYS), (fitted(gpu), sorted([*schema.KEYS, "tf32"]))):
        description, _ = container.read(saved(net), schema.layout)
        assert sorted(description) == keys
    assert description["tf32"] is True


@pytest.mark.parametrize("value", [False, 1, "True", None])
def test_another_value_in_a_file_is_refused(value, tmp_path):
    net = fitted()
    description, arrays = container.read(saved(net), schema.layout)
    container.write(tmp_path / "net", description | {"tf32": value}, arrays)
    with pytest.raises(container.FileError):
        dlx.load(tmp_path / "net")


def test_the_text_about_a_file(gpu, tmp_path):
    from dlx.files.inspection import inspect_file

    fitted(gpu).save(tmp_path / "net")
    assert "parameters, float32, in TF32 on CUDA devices" in " ".join(inspect_file(tmp_path / "net").split())


def test_a_network_of_an_older_pickle_is_without(be):
    net = fitted(be)
    state = {name: value for name, value in net.__getstate__().items() if name != "_tf32"}
    old = dlx.Network.__new__(dlx.Network)
    old.__setstate__(state)
    assert old.tf32 is False


# -- checkpoints --


@pytest.mark.parametrize("first", [True, False])
def test_a_resumed_training_says_that_the_precision_changed(of_devices, tmp_path, first):
    gpu = of_devices
    fitted(gpu.with_tf32(first), checkpoint=tmp_path)
    how = HOW | {"epochs": 4, "checkpoint": tmp_path, "backend": gpu.selector}
    with pytest.warns(UserWarning, match=f"not to the same bits: tf32 was {first} and is {not first} now") as caught:
        net = dlx.fit(X, Y, **how, tf32=not first)
    assert len(caught) == 1
    assert (net.tf32, len(net.history["loss"])) == (not first, 4)
    assert dlx.load(max(tmp_path.glob("*.safetensors"))).tf32 is not first


def test_a_checkpoint_of_an_older_dlx_was_without(of_devices, tmp_path):
    gpu = of_devices
    fitted(gpu.selector, checkpoint=tmp_path)
    path = max(tmp_path.glob("checkpoint-*"))
    description, arrays = container.read(path, schema.layout)
    del description["training"]["settings"]["arithmetic"]["tf32"]
    container.write(path, description, arrays)
    how = HOW | {"epochs": 4, "checkpoint": tmp_path}
    with pytest.warns(UserWarning, match="tf32 was False and is True now"):
        dlx.fit(X, Y, **how, backend=gpu)


# -- estimators --


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("how", ["argument", "backend"])
def test_estimators_take_it(gpu, how, monkeypatch):
    """In training and in prediction, where the weights lie on the host too."""
    seen = []
    scope = type(gpu).scope
    monkeypatch.setattr(type(gpu), "scope", lambda self: seen.append(self.tf32) or scope(self))
    given = {"backend": gpu.selector, "tf32": True} if how == "argument" else {"backend": gpu}
    est = dlx.MLPRegressor((3,), max_iter=2, random_state=0, **given)
    assert est.get_params()["tf32"] is given.get("tf32")
    for again in (est, clone(est), pickle.loads(pickle.dumps(est))):
        for work in (lambda again=again: again.fit(X, Y), lambda again=again: again.predict(X)):
            seen.clear()
            work()
            assert any(seen)
    again = pickle.loads(pickle.dumps(again))
    seen.clear()
    again.predict(X)
    assert any(seen)
    off = clone(est).set_params(tf32=False).fit(X, Y)
    seen.clear()
    off.predict(X)
    assert not any(seen)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_predicts_where_there_is_no_cuda_device():
    """As after unpickling on another machine; a training there is refused."""
    est = dlx.MLPClassifier((3,), max_iter=2, random_state=0).fit(X, np.arange(24) % 2)
    expected = est.predict_proba(X)
    est.set_params(tf32=True)
    np.testing.assert_array_equal(est.predict_proba(X), expected)
    with refused(refusal("numpy")):
        est.fit(X, np.arange(24) % 2)


def test_an_estimator_of_an_older_pickle_is_without():
    est = dlx.MLPRegressor((3,))
    state = {name: value for name, value in est.__getstate__().items() if name != "tf32"}
    old = dlx.MLPRegressor.__new__(dlx.MLPRegressor)
    old.__setstate__(state)
    assert old.get_params()["tf32"] is None


# -- the switches of PyTorch --

if "torch" in INSTALLED:
    import torch

    from dlx.backends import _torch_precision

    NEW = hasattr(torch.backends.cuda.matmul, "fp32_precision")
    needs_new = pytest.mark.skipif(not NEW, reason="PyTorch has one switch for all before 2.9")

    def own(kind):
        return {"cuda": torch.backends.cuda.matmul, "cpu": torch.backends.mkldnn.matmul}[kind]

    @pytest.fixture
    def users():
        """Sets the user's own switches, and puts them back as they were."""
        before = torch.get_float32_matmul_precision()
        yield
        torch.set_float32_matmul_precision(before)
        if NEW:
            torch.backends.fp32_precision = "none"
            for kind in ("cuda", "cpu"):
                own(kind).fp32_precision = "none"

    def spy(seen):
        """An activation that notes PyTorch's switch at each call."""

        def f(z):
            seen.append(own("cpu").fp32_precision if NEW else torch.get_float32_matmul_precision())
            return z * 1.0

        return f, lambda z, a: z * 0 + 1

    @pytest.mark.parametrize("precision", ["medium", "high", "highest"])
    def test_a_training_on_torch_has_full_precision_whatever_the_user_set(precision, users):
        torch.set_float32_matmul_precision(precision)
        before = own("cpu").fp32_precision if NEW else precision
        seen, told = [], []
        net = dlx.fit(X, Y, **HOW, backend="torch", activation=spy(seen), callbacks=lambda net: told.append(1))
        net.predict(X)
        with pytest.raises(ValueError, match="`X` must"):
            net.predict(X * np.nan)
        assert set(seen) == {"ieee" if NEW else "highest"}
        assert torch.get_float32_matmul_precision() == precision
        assert (own("cpu").fp32_precision if NEW else precision) == before

    @needs_new
    @pytest.mark.parametrize("kind", ["cuda", "cpu"])
    @pytest.mark.parametrize("value", ["none", "ieee", "tf32"])
    def test_the_users_own_switch_is_put_back(kind, value, users):
        switch = own(kind)
        switch.fp32_precision = value
        full = "none" if value == "none" else "ieee"  # "none" is full precision, and cheaper to leave
        with _torch_precision.precision(kind, False):
            assert switch.fp32_precision == full
            with _torch_precision.precision(kind, True):
                assert switch.fp32_precision == "tf32"
                with contextlib.suppress(ZeroDivisionError), _torch_precision.precision(kind, False):
                    raise ZeroDivisionError
                assert switch.fp32_precision == "tf32"
            assert switch.fp32_precision == "ieee"
        assert switch.fp32_precision == value

    @needs_new
    def test_a_more_general_switch_goes_on_to_decide(users):
        switch = own("cuda")
        torch.backends.fp32_precision = "tf32"
        with _torch_precision.precision("cuda", False):
            assert switch.fp32_precision == "ieee"
        assert switch.fp32_precision == "tf32"
        torch.backends.fp32_precision = "ieee"
        assert switch.fp32_precision == "ieee"

    @needs_new
    def test_what_was_set_by_the_old_switch_can_still_be_read(users):
        """PyTorch refuses to read it after the two have been set apart."""
        for precision in ("high", "highest", "medium"):
            torch.set_float32_matmul_precision(precision)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                fitted("torch").predict(X)
                with _torch_precision.precision("cuda", precision == "highest"):
                    pass
            assert torch.get_float32_matmul_precision() == precision
            assert torch.backends.cuda.matmul.allow_tf32 is (precision != "highest")

    def test_the_one_switch_of_lower_versions(users):
        switch = _torch_precision._common_switch()
        for precision in ("high", "highest"):
            torch.set_float32_matmul_precision(precision)
            with switch.at(True):
                assert torch.get_float32_matmul_precision() == "high"
                with switch.at(False):
                    assert torch.get_float32_matmul_precision() == "highest"
                assert torch.get_float32_matmul_precision() == "high"
            assert torch.get_float32_matmul_precision() == precision

    def test_threads_that_leave_in_any_order_put_it_back(users):
        """Each would put back what it had found, and the last one TF32, which was the other's."""
        value = ["users"]
        switch = _torch_precision.Switch(lambda: value[0], lambda new: value.__setitem__(0, new), ("full",), ("tf32",))
        entered, left = threading.Event(), threading.Event()

        def other():
            with switch.at(True):
                entered.set()
                left.wait(10)

        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
        with switch.at(False):
            left.set()
            thread.join(10)
            assert value == ["full"]
        assert value == ["users"]

    def test_a_training_under_the_new_switch_can_be_saved(tmp_path, users):
        """The arithmetic of a checkpoint read the old switch, which PyTorch refuses after the new one was set."""
        if NEW:
            torch.backends.cuda.matmul.fp32_precision = "tf32"
        fitted("torch", checkpoint=tmp_path)
        assert dlx.get_backend("torch").describe()["tf32"] == "False"


# -- JAX --

if "jax" in INSTALLED:
    import jax

    def noting(seen):
        """An activation that notes JAX's setting whenever it is traced."""

        def f(z):
            seen.append(jax.config.jax_default_matmul_precision)
            return z * 1.0

        return f, lambda z, a: z * 0 + 1

    @pytest.mark.parametrize("users", [None, "bfloat16", "tensorfloat32"])
    def test_jax_has_full_precision_whatever_the_user_set(users):
        seen = []
        with jax.default_matmul_precision(users):
            net = dlx.fit(X, Y, **HOW, backend="jax", activation=noting(seen))
            net.predict(X)
            dlx.L_layer_model(X.T, Y.T, DIMS, activation=noting(seen), backend="jax")
            assert jax.config.jax_default_matmul_precision == users
        assert set(seen) == {"highest"}

    @pytest.mark.parametrize(("tf32", "word"), [(False, "HIGHEST"), (True, "HIGH")])
    def test_what_xla_is_asked_for(tf32, word):
        """In the scope, in a compiled function outside of it, and by `product` alone."""
        be = copy.copy(dlx.get_backend("jax"))
        be.tf32 = tf32
        with be.scope():
            texts = [jax.jit(lambda a, b: a @ b).lower(X, X.T).as_text()]
        texts += [be.compile(lambda a, b: a @ b).lower(X, X.T).as_text(), jax.jit(be.product).lower(X, X.T).as_text()]
        assert [f"precision = [{word}, {word}]" in text for text in texts] == [True] * 3

    def test_rows_and_loops_have_the_precision_outside_of_the_scope():
        be, seen = dlx.get_backend("jax"), []

        def of_rows(constants, X):
            seen.append(jax.config.jax_default_matmul_precision)
            return X @ constants

        def step(carry, constants, inputs):
            seen.append(jax.config.jax_default_matmul_precision)
            return carry @ constants, carry[0, 0]

        square = np.ones((4, 4), "f4")
        for key in (None, "of this test"):
            be.rowwise(of_rows, key=key)(square, X)
            list(be.loop(step, key=key)(be.asarray(square), square, (np.ones(3),), 3))
        assert len(seen) >= 4
        assert set(seen) == {"highest"}

    def test_the_two_precisions_are_compiled_apart_and_once_each(monkeypatch):
        be = dlx.get_backend("jax")
        fast = copy.copy(be)
        fast.tf32 = True
        traced = []

        def step(x):
            traced.append(jax.config.jax_default_matmul_precision)
            return x @ x

        for _ in range(3):
            for chosen in (be, fast):
                with chosen.scope():
                    chosen.compile(step, key="a step of this test")(np.ones((3, 3), "f4"))
        assert traced == ["highest", "tensorfloat32"]


# -- devices that compute --

ERRORS = """
import sys, numpy as np, dlx
selector, rng = sys.argv[1], np.random.default_rng(0)
A, B = (rng.standard_normal((512, 512)).astype("f4") for _ in range(2))
exact = A.astype("f8") @ B.astype("f8")
for tf32 in (False, True, False):
    be = dlx.get_backend(selector, tf32=tf32)
    with be.scope():
        found = be.to_host(be.compile(be.product)(be.asarray(A), be.asarray(B)))
    print(np.abs(found - exact).max() / np.abs(exact).max())
"""
JAX_ON_GPU = ["jax:gpu"] if importlib.util.find_spec("jax_plugins") else []  # only in a process of its own

if GPUS:

    @pytest.mark.gpu
    @pytest.mark.parametrize("selector", [*GPUS, *JAX_ON_GPU])
    def test_tf32_changes_the_digits_of_products_on_a_device(selector):
        """An error of about 3e-4 of the largest number in the product, where float32 has 3e-7."""
        environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # beside other tests
        command = [sys.executable, "-P", "-c", ERRORS, selector]
        found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert found.returncode == 0, found.stderr
        plain, fast, again = map(float, found.stdout.split())
        assert max(plain, again) < 3e-6
        assert 3e-5 < fast < 3e-3

    @pytest.mark.gpu
    @pytest.mark.parametrize("selector", GPUS)
    def test_a_training_in_tf32_on_a_device(selector, rng):
        X = rng.standard_normal((512, 256)).astype("f4")
        Y = np.tanh(X @ rng.standard_normal((256, 4)).astype("f4") / 16)
        how = {"layer_dims": (256, 256, 4), "epochs": 5, "rng": 0}
        exact = dlx.fit(X, Y, **how, backend="numpy")
        plain, fast = (dlx.fit(X, Y, **how, backend=selector, tf32=tf32) for tf32 in (False, True))
        far = [abs(net.history["loss"][-1] / exact.history["loss"][-1] - 1) for net in (plain, fast)]
        assert far[0] < 1e-4
        assert far[1] < 5e-2
        here, there = dlx.load(saved(fast)), dlx.load(saved(fast), selector)
        errors = [np.abs(net.predict(X) - here.predict(X)).max() for net in (there.to(selector, tf32=False), there)]
        assert errors[0] < 1e-5 < errors[1] < 1e-1
