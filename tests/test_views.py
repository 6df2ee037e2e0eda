"""What `summary` and notebooks show of a network, and notebooks of the estimators."""

import html
import html.parser
import itertools
import re

import numpy as np
import pytest

import dlx

DIGITS = (64, 128, 10)


def network(dims, **settings):
    """Of zeros, which take no memory until they are read."""
    return dlx.Network([(np.zeros((a, b)), np.zeros(b)) for a, b in itertools.pairwise(dims)], **settings)


def named(name):
    return dlx.activations.relu()._replace(name=name)


class Cells(html.parser.HTMLParser):
    """The rows of a table, the text after it, and every tag with its attributes; what is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.after, self.tags, self.open = [], "", [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += text
        else:
            self.after += text


@pytest.mark.parametrize(
    ("dims", "names"),
    [
        (DIGITS, ["relu"]),
        ((3, *[2] * 1200, 1), ["leaky_relu"] * 1200),  # the number of a layer has four digits
        ((1_500_000, 2, 1_500_000), ["gelu"]),
        ((4, 5, 5, 2), ["a name " * 20, "x" * 200]),
    ],
    ids=["digits", "deep", "wide", "long names"],
)
def test_a_summary_fits_80_columns_and_counts_right(dims, names):
    net = network(dims, activation=[named(each) for each in names])
    head, *lines = net.summary().split("\n")
    assert max(map(len, [head, *lines])) <= 80
    assert head.split() == ["layer", "shape", "activation", "parameters"]
    layers = lines[: len(dims) - 1]
    assert {len(each) for each in [head, *layers]} == {len(head)}  # columns stand one below the other
    for l, (line, a, b, name) in enumerate(zip(layers, dims[:-1], dims[1:], [*names, "(scores)"], strict=True), 1):
        number, shape, said, count = re.fullmatch(r" *(\d+)  (\d+ -> \d+) +(.+?) +([\d,]+)", line).groups()
        assert (int(number), shape, int(count.replace(",", ""))) == (l, f"{a} -> {b}", a * b + b)
        assert name.startswith(said.removesuffix("..."))
    total = sum(W.size + b.size for W, b in net.params)
    rest = " ".join(lines[len(dims) - 1 :])
    assert rest == f"{total:,} parameters, {8 * total:,} bytes (float64 on numpy); loss squared_error"


def test_the_widest_layers_there_could_be_fit_80_columns():
    """No memory holds them, so only their widths are there."""
    net = network((2, 2, 2), activation=[named("a_long_name_of_a_user")])
    net.layer_dims = (2**31 - 1, 2**31 - 1, 2**31 - 1)
    assert max(map(len, net.summary().split("\n"))) <= 80
    assert "2147483647 -> 2147483647" in net.summary()
    assert f"{2**62 - 2**31:,}" in net.summary()


def test_line_breaks_in_names_break_no_table():
    net = network((2, 2, 1), activation=[named("two\nlines")], loss=dlx.losses.huber()._replace(name="my\nloss"))
    assert len(net.summary().split("\n")) == 4
    assert "two lines" in net.summary()


def test_the_html_of_a_network_says_what_its_summary_says():
    net = network(DIGITS, loss="cross_entropy", dtype="float32", history={"loss": [2.0, 1.5, 1.25]})
    found = Cells(net._repr_html_())
    assert found.rows == [
        ["layer", "shape", "activation", "parameters"],
        ["1", "64 -> 128", "relu", "8,320"],
        ["2", "128 -> 10", "(scores)", "1,290"],
    ]
    facts = "9,610 parameters, 38,440 bytes (float32 on numpy); loss cross_entropy"
    assert net.summary().endswith(facts)
    assert found.after == f"{facts}; 3 epochs trained"


SETTINGS = [
    ({"loss": dlx.losses.quantile([0.05, 0.5, 0.95])}, "loss quantile(q=[0.05, 0.5, 0.95])"),
    ({"loss": "quantile"}, "loss quantile(q=0.5)"),
    ({"loss": dlx.losses.cross_entropy(0.1)}, "loss cross_entropy(label_smoothing=0.1)"),
    ({"loss": "cross_entropy"}, "loss cross_entropy"),
    ({"loss": dlx.losses.huber(2.5)}, "loss huber(width=2.5)"),
    ({"loss": "huber"}, "loss huber"),
]


@pytest.mark.parametrize(("how", "said"), SETTINGS, ids=[said for _, said in SETTINGS])
def test_levels_and_smoothing_are_named(how, said):
    """Of a quantile model `summary` did not say which quantiles it predicts."""
    net = network((4, 3), **how)
    assert " ".join(net.summary().split("\n")).endswith(f"; {said}")
    assert max(map(len, net.summary().split("\n"))) <= 80
    assert f"; {said}; no epoch trained" in Cells(net._repr_html_()).after


def test_many_levels_are_wrapped():
    levels = [round(k / 40, 3) for k in range(1, 40)]
    net = network((4, 39), loss=dlx.losses.quantile(levels))
    assert max(map(len, net.summary().split("\n"))) <= 80
    assert f"loss quantile(q={levels})" in " ".join(net.summary().split("\n"))


def test_settings_of_activations_are_named_where_their_names_do_not_say_them():
    net = network((4, 3, 3, 3, 1), activation=[dlx.activations.leaky_relu(0.3), "leaky_relu", dlx.activations.elu(0.5)])
    names = ["leaky_relu(slope=0.3)", "leaky_relu", "elu(alpha=0.5)", "(scores)"]
    assert [row[2] for row in Cells(net._repr_html_()).rows[1:]] == names
    assert [line.split()[4] for line in net.summary().split("\n")[1:5]] == names


@pytest.mark.parametrize(("history", "said"), [({}, "no epoch trained"), ({"loss": [1.0]}, "; 1 epoch trained")])
def test_the_html_counts_epochs(history, said):
    assert Cells(network((2, 1), history=history)._repr_html_()).after.endswith(said)


def test_the_html_names_the_backend(be):
    net = network((2, 1)).to(be, dtype="float32")
    assert f"(float32 on {be.selector})" in Cells(net._repr_html_()).after


def test_names_in_html_are_text():
    evil = "<script>alert('1' & \"2\")</script>"
    loss = dlx.losses.huber()._replace(name="<b>")
    found = Cells(network((2, 2, 1), activation=[named(evil)], loss=loss)._repr_html_())
    assert found.rows[1][2] == evil
    assert "loss <b>;" in found.after
    assert not {"script", "b"} & {tag for tag, _ in found.tags}


def test_the_html_is_readable_on_light_and_dark_and_loads_nothing():
    """It sets no colour of text and none behind it, and its line is of a grey seen on both."""
    found = Cells(network(DIGITS)._repr_html_())
    assert {name for _, attributes in found.tags for name in attributes} == {"style"}
    styles = "; ".join(attributes.get("style", "") for _, attributes in found.tags)
    assert not re.search(r"(?<![-\w])color|background|url|font", styles)
    assert set(re.findall(r"rgba\(.*?\)", styles)) == {"rgba(128, 128, 128, 0.5)"}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("make", ["MLPClassifier", "MLPRegressor"])
def test_the_html_of_an_estimator(make):
    """scikit-learn's own: whether it is fitted, the parameters that were set, and what was learnt."""
    solver = dlx.adamw(0.01, b2=0.9)
    est = getattr(dlx, make)((7,), solver=solver, dropout=0.25, max_iter=3, random_state=0)
    before = est._repr_html_()
    assert "<span>Not fitted</span>" in before
    assert "loss_curve_" not in before
    after = est.fit(np.arange(20.0).reshape(10, 2), [0, 1] * 5)._repr_html_()
    assert "<span>Fitted</span>" in after
    for each in (before, after):
        for name, value in (("hidden_layer_sizes", r"\(7,\)"), ("dropout", "0.25"), ("max_iter", "3")):
            assert re.search(rf'class="user-set".*?>{name}</td>\s*<td class="value">{value}</td>', each, re.S)
        assert "solver=adamw(learning_rate=0.01, b1=0.9, b2=0.9, eps=1e-08, weight_decay=0.01)" in html.unescape(each)
        assert re.search(r'class="value">adamw\(', each)
    for name in ("loss_curve_", "coefs_", "n_iter_"):
        assert re.search(rf">{name}</a></td>\s*<td class=\"fitted-att-type\">", after)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (dlx.activations.leaky_relu(0.2), "leaky_relu(slope=0.2)"),
        (dlx.activations.relu(), "relu()"),
        (dlx.losses.cross_entropy(0.1), "cross_entropy(label_smoothing=0.1)"),
        (dlx.losses.quantile([0.1, 0.9]), "quantile(q=[0.1, 0.9])"),
        (dlx.adam(), "adam(b1=0.9, b2=0.999, eps=1e-08)"),
        (dlx.momentum(0.1, beta=0.8, weight_decay=0.01), "momentum(learning_rate=0.1, beta=0.8, weight_decay=0.01)"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_part_is_shown_as_the_call_that_makes_it(part, text):
    assert repr(part) == text
    modules = (dlx.activations, dlx.losses, dlx.optimizers)
    makers = {name: make for module in modules for name, make in vars(module).items()}
    again = eval(text, makers)
    assert (again.name, again.settings) == (part.name, part.settings)
