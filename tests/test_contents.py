"""What is written is checked as it will be read: whatever was done to a network's attributes, a file of it loads.

The reports: `net.params` replaced by the average of two float32 networks (float64) and saved over a good file; NaN
params, wrong `classes`, `feature_names`, `layer_dims`, `activation=()`; a callback that sets `net.classes`, `.loss`,
`.activation` or `.dtype` made every checkpoint unreadable. DLX_FUZZ sets how many states are tried.
"""

import io
import os
import re

import numpy as np
import pytest

import dlx
from dlx import activations, losses
from dlx.files import checkpoints, container, contents, schema
from dlx.network import Layer

RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((40, 3)).astype("f4"), np.array(["a", "b", "c"])[np.arange(40) % 3]
HOW = {"layer_dims": (3, 4, 3), "epochs": 3, "batch_size": 20, "rng": 0}
CASES = int(os.environ.get("DLX_FUZZ", "2000")) // 4


def network(be=None, dtype="float32", **settings):
    rng = np.random.default_rng(1)
    pairs = [(rng.standard_normal((3, 4)), np.zeros(4)), (rng.standard_normal((4, 3)), np.ones(3))]
    how = {"loss": "cross_entropy", "classes": ["a", "b", "c"], "feature_names": ["x", "y", "z"]}
    return dlx.Network(pairs, backend=be, dtype=dtype, history={"loss": [2.0, 1.0]}, **how | settings)


def host(net):
    return [net.backend.to_host(each) for layer in net.params for each in layer]


def assert_equal(found, net):
    """In all that a file holds; of the network that was saved, whatever its attributes are said in."""
    for a, b in zip(host(found), host(net), strict=True):
        np.testing.assert_array_equal(a, b.reshape(a.shape))
    assert [each[:2] for each in found.activation] == [activations.get(each)[:2] for each in net.activation]
    assert found.loss[:2] == losses.get(net.loss)[:2]
    assert found.layer_dims == tuple(int(each) for each in net.layer_dims)
    assert (found.classes is None) == (net.classes is None)
    assert found.classes is None or found.classes.tolist() == np.array(net.classes).tolist()
    assert found.feature_names == (None if net.feature_names is None else list(net.feature_names))
    assert found.dtype == found.params[0].W.dtype.name


def doubled(net):
    other = network(net.backend)
    two = np.asarray(2.0)  # as a mean over networks makes float64 of float32
    return tuple(
        Layer(*(net.backend.asarray((net.backend.to_host(a) + net.backend.to_host(b)) / two.astype("f8"), "float64")
                for a, b in zip(one, another, strict=True)))
        for one, another in zip(net.params, other.params, strict=True)
    )  # fmt: skip


# -- at the door of save and to_onnx, over a good file --


def test_params_of_another_dtype_are_refused_on_every_library(be, tmp_path):
    """The average of two float32 networks, by way of the host, is float64: the file could not be read."""
    path, net = tmp_path / "net", network(be)
    net.save(path)
    before = path.read_bytes()
    net.params = doubled(net)
    text = (
        "`params` must be float32, as `dtype` says; got float64 in params[0].W. "
        "Cast them, or make a network of them: dlx.Network(params, ...)."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        net.save(path)
    assert path.read_bytes() == before
    dlx.Network(net.params, loss="cross_entropy").save(path)  # the remedy
    assert dlx.load(path).dtype == "float64"


def changed(W=lambda x: x, b=lambda x: x):
    return tuple(Layer(W(each.W), b(each.b)) for each in network().params)


def put_nan(x):
    x = x.copy()
    x[0, 1] = np.nan
    return x


WRONG = {
    "NaN": ("params", changed(W=put_nan), ValueError, "`params` must be finite; got nan in params[0].W. Go back to"),
    "inf": ("params", changed(b=lambda b: b + np.float32(np.inf)), ValueError, "`params` must be finite; got inf in"),
    "a library": ("params", 3, TypeError, "`params` must be a sequence of pairs (W, b), one for each layer; got int."),
    "an array": ("params", np.ones((2, 3)), TypeError, "`params` must be a sequence of pairs (W, b), one for each"),
    "float16": ("params", changed(b=lambda b: b.astype("f2")), TypeError, "got float16 in params[0].b. Cast them"),
    "integers": ("params", changed(W=lambda W: W.astype(int)), TypeError, "got int64 in params[0].W. Cast them"),
    "one layer": ("params", network().params[:1], ValueError, "`layer_dims` must be the widths of `params`, (3, 4);"),
    "other widths": ("params", [(np.ones((3, 3), "f4"), np.ones(3, "f4"))], ValueError, "or make a network of them"),
    "shapes": ("params", changed(W=lambda W: W[:, :2]), ValueError, "`params[0]` must have W of shape"),
    "layer_dims": ("layer_dims", (3, 5, 3), ValueError, "`layer_dims` must be the widths of `params`, (3, 4, 3);"),
    "no layer_dims": ("layer_dims", None, ValueError, "`layer_dims` must be the widths of `params`, (3, 4, 3); got N"),
    "halves": ("layer_dims", (3.0, 4.5, 3), ValueError, "`layer_dims` must be the widths of `params`, (3, 4, 3);"),
    "no activation": ("activation", (), ValueError, "`activation` must be one activation or a sequence of 1; got 0."),
    "two": ("activation", ("relu", "relu"), ValueError, "`activation` must be one activation or a sequence of 1;"),
    "none": ("activation", None, TypeError, "`activation` must be one of"),
    "unknown": ("activation", ("rely",), ValueError, "`activation[0]` must be one of"),
    "loss": ("loss", "hinge", ValueError, "`loss` must be one of"),
    "regression": ("loss", losses.squared_error(), ValueError, "`classes` must be None for loss squared_error; got"),
    "no loss": ("loss", None, TypeError, "`loss` must be one of"),
    "two classes": ("classes", np.array(["a", "b"]), ValueError, "`classes` must be 3 distinct labels"),
    "a class twice": ("classes", np.array([1, 2, 2]), ValueError, "`classes` must be 3 distinct labels"),
    "floats": ("classes", np.array([0.5, 1.5, 2.5]), ValueError, "`classes` must be 3 distinct labels"),
    "dates": ("classes", np.arange(3).astype("M8[D]"), ValueError, "`classes` must be 3 distinct labels"),
    "one name": ("feature_names", ["x"], ValueError, "`feature_names` must be None or 3 strings"),
    "numbers": ("feature_names", [1, 2, 3], ValueError, "`feature_names` must be None or 3 strings"),
    "a text": ("feature_names", "xyz", ValueError, "`feature_names` must be None or 3 strings"),
    "float64": ("dtype", "float64", TypeError, "`params` must be float64, as `dtype` says; got float32 in params[0]"),
    "half": ("dtype", "float16", ValueError, "`dtype` must be one of 'float32', 'float64'; got 'float16'."),
    "no backend": ("backend", "numpy", TypeError, "`backend` must be a Backend; got 'numpy'."),
    "texts": ("history", {"loss": "12"}, ValueError, "`history` must be a dict of lists of numbers to be saved"),
    "numerals": ("history", {"loss": ["1", "2"]}, ValueError, "`history` must be a dict of lists of numbers to be"),
    "no history": ("history", None, ValueError, "`history` must be a dict of lists of numbers to be saved"),
    "long": ("feature_names", ["x" * (1 << 22)] * 3, ValueError, "Use fewer layers, or fewer and shorter labels."),
}


@pytest.mark.parametrize(("name", "value", "kind", "text"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused_and_the_old_file_stays(name, value, kind, text, tmp_path):
    path, net = tmp_path / "net", network()
    net.save(path)
    before = path.read_bytes()
    setattr(net, name, value)
    with pytest.raises(kind, match=re.escape(text)):
        net.save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["net"]
    stream = io.BytesIO()
    with pytest.raises(kind, match=re.escape(text)):
        net.save(stream)
    assert stream.getvalue() == b""


@pytest.mark.parametrize("case", ["NaN", "float16", "layer_dims", "no activation", "two classes", "float64", "loss"])
def test_so_does_to_onnx(case, tmp_path):
    pytest.importorskip("onnx")
    name, value, kind, text = WRONG[case]
    net = network()
    setattr(net, name, value)
    with pytest.raises(kind, match=re.escape(text)):
        net.to_onnx(tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_params_of_another_library_are_refused(be):
    net = network(be)
    net.params = network("numpy").params
    if be.name == "numpy":
        return net.save(io.BytesIO())
    text = f"`params` must be arrays of {be.name}, as `backend` says; got one of numpy in params[0].W. Convert them, or"
    with pytest.raises(TypeError, match=re.escape(text)):
        net.save(io.BytesIO())


SETTINGS = [
    (losses.huber(2.5), {"width": 9.0}),
    (losses.quantile([0.1, 0.5, 0.9]), {"q": [0.2, 0.5, 0.8]}),
    (losses.cross_entropy(0.2), {"label_smoothing": 0.1}),
]


@pytest.mark.parametrize(("loss", "other"), SETTINGS, ids=lambda each: str(each)[:20])
def test_settings_that_are_not_those_of_the_formulas_are_not_dlxs_own(loss, other, tmp_path):
    """They would be saved, and the network that loads would have another loss."""
    net = network(loss=loss._replace(settings=other), classes=None)
    with pytest.raises(ValueError, match="functions of your own"):
        net.save(tmp_path / "net")
    net.loss = loss._replace(targets="binary")
    with pytest.raises(ValueError, match="functions of your own"):
        net.save(tmp_path / "net")


MEANT = {
    "classes in a list": ("classes", ["x", "y", "z"]),
    "numbered": ("classes", [7, 5, 6]),
    "layer_dims in a list": ("layer_dims", [3, 4, 3]),
    "layer_dims in an array": ("layer_dims", np.array([3, 4, 3], "i2")),
    "a dtype of NumPy's": ("dtype", np.dtype("float32")),
    "its scalar": ("dtype", np.float32),
    "names in an array": ("feature_names", np.array(["p", "q", "r"])),
    "names in a tuple": ("feature_names", ("p", "q", "r")),
    "a loss's name": ("loss", "cross_entropy"),
    "activations' names": ("activation", ["tanh"]),
    "flat biases": ("params", [(W, b.reshape(-1)) for W, b in network().params]),
    "read backwards": ("params", [(np.asfortranarray(W), b) for W, b in network().params]),
    "history in arrays": ("history", {"loss": np.array([3.0, 2.5], "f4")}),
}


@pytest.mark.parametrize(("name", "value"), MEANT.values(), ids=MEANT)
def test_what_is_obviously_meant_is_saved(name, value):
    net = network()
    setattr(net, name, value)
    stream = io.BytesIO()
    net.save(stream)
    stream.seek(0)
    net.params = [Layer(*pair) for pair in net.params]
    assert_equal(dlx.load(stream), net)


def test_an_index_of_pandas_names_features():
    pd = pytest.importorskip("pandas")
    net = network()
    net.feature_names = pd.Index(["p", "q", "r"])
    net.classes = pd.Series(["x", "y", "z"])
    stream = io.BytesIO()
    net.save(stream)
    stream.seek(0)
    found = dlx.load(stream)
    assert (found.feature_names, found.classes.tolist()) == (["p", "q", "r"], ["x", "y", "z"])


# -- whatever its attributes become --

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies


def full(shape, dtype, value):
    with np.errstate(over="ignore"):
        return np.full(shape, value).astype(dtype)


DTYPES = st.sampled_from(["f2", "f4", "f8", "i4", "c8", ">f4", "O", "U1", "?"])
ARRAYS = st.builds(
    full,
    st.lists(st.sampled_from([0, 1, 3, 4]), max_size=3),
    DTYPES.filter(lambda each: each not in ("i4", "?")),
    st.sampled_from([0.0, 1.5, 1e30, -0.0]),
) | st.sampled_from([np.array([np.nan, 1.0, 2.0]), np.full((3, 4), np.inf, "f4"), np.ones((3, 4), "f4")])
WORDS = st.sampled_from(
    ["relu", "tanh", "a", "b", "cross_entropy", "quantile", "float32", "float64", "", "\0", "\ud800"]
)
ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 5), st.sampled_from([2**63, 2**64, 10**400, 1.5, np.nan, np.inf]), WORDS,
    st.sampled_from([np.float32(1), np.int8(3), np.str_("a"), np.dtype("f4"), b"a", 1j, np.datetime64("2020")]),
    st.sampled_from([activations.elu(0.5), activations.relu(), losses.huber(2.0), losses.cross_entropy(), np.tanh]),
)  # fmt: skip
ANYTHING = st.recursive(
    st.one_of(ATOMS, ARRAYS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=3).map(tuple), st.dictionaries(WORDS, inner, max_size=2)
    ),
    max_leaves=6,
)
LIKELY = {
    "classes": st.one_of(st.lists(ATOMS, min_size=3, max_size=3), st.lists(WORDS, min_size=3, max_size=3)),
    "feature_names": st.lists(WORDS, min_size=3, max_size=3),
    "layer_dims": st.permutations([3, 4, 3]),
    "activation": st.lists(st.one_of(WORDS, ATOMS), min_size=1, max_size=1),
    "loss": st.one_of(WORDS, ATOMS),
    "dtype": st.one_of(WORDS, ATOMS),
    "params": st.tuples(st.tuples(ARRAYS, ARRAYS), st.tuples(ARRAYS, ARRAYS)),
    "history": st.dictionaries(
        st.one_of(WORDS, st.none(), st.integers(0, 3)), st.one_of(ANYTHING, st.lists(ATOMS, max_size=3)), max_size=2
    ),
    "backend": ANYTHING,
}
STATES = st.lists(
    st.sampled_from(sorted(LIKELY)).flatmap(lambda name: st.tuples(st.just(name), st.one_of(LIKELY[name], ANYTHING))),
    min_size=1, max_size=2,
)  # fmt: skip


def test_every_state_is_saved_and_loads_or_is_refused(tmp_path):
    path, outcomes = tmp_path / "net", {True: 0, False: 0}
    network().save(path)

    @hypothesis.settings(
        max_examples=CASES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.seed(0)
    @hypothesis.given(STATES)
    def run(changes):
        net, before = network(), path.read_bytes()
        for name, value in changes:
            setattr(net, name, value)
        try:
            net.save(path)
        except (ValueError, TypeError) as reason:
            refused = str(reason)
        else:
            refused = None
        if refused is not None:
            assert re.match(r"`[^`]+` must .+; got .*\. \S", refused, re.S), refused
            assert path.read_bytes() == before
            outcomes[False] += 1
            return
        found = dlx.load(path)
        own = contents.of_network(net)
        assert [each.tolist() for each in host(found)] == [each.tolist() for pair in own.params for each in pair]
        assert (found.layer_dims, found.dtype, found.feature_names) == (own.layer_dims, own.dtype, own.feature_names)
        assert (found.loss[:3], [e[:3] for e in found.activation]) == (own.loss[:3], [e[:3] for e in own.activation])
        assert (found.classes is None) == (own.classes is None)
        assert found.classes is None or found.classes.tolist() == own.classes.tolist()
        found.predict(np.ones((2, found.layer_dims[0])))
        outcomes[True] += 1

    run()
    assert min(outcomes.values()) > CASES / 50


# -- checkpoints --

CALLED = {
    "classes": np.array(["x", "y", "z"]),
    "loss": losses.cross_entropy(0.1),
    "activation": (activations.tanh(),),
    "dtype": "float64",
    "feature_names": ["p", "q", "r"],
    "layer_dims": (3, 5, 3),
    "backend": "numpy",
}


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("event", ["on_start", "on_epoch_end"])
@pytest.mark.parametrize("name", CALLED)
def test_a_callback_that_changes_the_network_is_told_at_the_next_checkpoint(name, event, optimizer, tmp_path):
    """It made every checkpoint unreadable, and nobody said so; what was saved before goes on to the same bits."""
    whole = dlx.fit(X, Y, **HOW, optimizer=optimizer)
    first = dlx.fit(X, Y, **HOW | {"epochs": 1}, optimizer=optimizer, checkpoint=tmp_path)

    class Changes:
        pass

    listener = Changes()
    setattr(listener, event, lambda net: setattr(net, name, CALLED[name]))
    text = (
        rf"^`{name}` must stay what it was when the training began, so that its checkpoints can be resumed; got .*\. "
    )
    with pytest.raises(ValueError, match=text + r"Change it after the training, or in a copy: copy\.deepcopy\(net\)\."):
        dlx.fit(X, Y, **HOW, optimizer=optimizer, checkpoint=tmp_path, callbacks=listener)
    assert [len(dlx.load(each).history["loss"]) for each in tmp_path.glob("checkpoint-*")] == [1]
    found = dlx.fit(X, Y, **HOW, optimizer=optimizer, checkpoint=tmp_path)
    assert len(first.history["loss"]) == 1
    for a, b in zip(host(found), host(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_changed_in_place_are_told(tmp_path):
    def once(net):
        net.classes[0] = "z"

    with pytest.raises(ValueError, match=r"^`classes` must stay what it was when the training began.*\['z' 'b' 'c'\]"):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path, callbacks=once)


def test_what_stays_equal_is_saved(tmp_path):
    def same(net):
        net.classes, net.loss, net.activation = net.classes.copy(), losses.cross_entropy(), (activations.relu(),)

    dlx.fit(X, Y, **HOW, checkpoint=tmp_path, callbacks=same)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2


def test_an_own_loss_that_becomes_another_is_told(tmp_path):
    def own():
        return (lambda Z, Y: ((Z - Y) ** 2).sum(-1, keepdims=True), lambda Z, Y: 2 * (Z - Y))

    with pytest.raises(ValueError, match="`loss` must stay what it was"):
        dlx.fit(
            X, X[:, 0], (3, 1), loss=own(), epochs=1, checkpoint=tmp_path,
            callbacks=lambda net: setattr(net, "loss", losses.get(own())),
        )  # fmt: skip


@pytest.mark.parametrize("part", ["slots/0/W1", "slots/1/b2", "W1", "best/b1"])
@pytest.mark.parametrize("wrong", [lambda x: x * np.nan, lambda x: x.astype("f8") * 1.0, lambda x: x[:, :1]])
def test_no_checkpoint_is_written_that_nobody_could_read(part, wrong, tmp_path, monkeypatch):
    """An optimizer of one's own may return arrays of any dtype, shape and number."""
    to_file = checkpoints.to_file

    def spoilt(*arguments):
        training, arrays = to_file(*arguments)
        return training, arrays | {part: wrong(arrays[part])}

    how = HOW | {"patience": 9}

    dlx.fit(X, Y, **how | {"epochs": 1}, checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("checkpoint-*")}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "to_file", spoilt)
        with pytest.raises(ValueError, match=rf"`checkpoint` must write what can be read again; got .*{part}"):
            dlx.fit(X, Y, **how, checkpoint=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("checkpoint-*")} == before


def test_the_writer_checks_what_the_reader_checks():
    """Every description that the reader refuses, the writer refuses."""
    net = network()
    own = contents.of_network(net)
    history = schema.history_arrays(net.history)
    description, arrays = schema.description_of(own, history), schema.tensors_of(own.params) | history
    contents.require_written("save", description, arrays)
    for other in ({"dtype": "float64"}, {"layer_dims": [3, 4]}, {"extra": 1}, {"classes": [1, "a", 2]},
                  {"feature_names": ["a"]}, {"activation": []}, {"made_by": np.nan}):  # fmt: skip
        with pytest.raises(
            (ValueError, TypeError), match=r"^`save` must write what can be read again; got .*\. Nothing"
        ):
            contents.require_written("save", description | other, arrays)
    with pytest.raises(ValueError, match="tensors of other names, dtypes or shapes than it describes: b1"):
        contents.require_written("save", description, {k: x for k, x in arrays.items() if k != "b1"})
    assert container.as_read(description) == description
