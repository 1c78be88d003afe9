"""The page: whole, offline, small, and deaf to what sampled texts say."""

import json
import re
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from builder import grid, language_case, regression_case, results

from refeed.report import Results, write
from refeed.report.figures import composition, curves, specification, to_svg
from refeed.report.growth import growth
from refeed.report.html import tag
from refeed.report.series import chart as curve_chart
from refeed.report.series import series
from refeed.report.text import count, duration, number

VOID = {"meta", "img", "br", "link"}
HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)> & {{7*7}} \u2028 "quoted"'


class Checker(HTMLParser):
    """Tags that open and close in order, and every address that the page would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.scripts = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        attributes = dict(attrs)
        assert not [name for name in attributes if name.startswith("on")]
        self.fetched += [attributes[name] for name in ("src", "srcset", "data") if attributes.get(name)]
        self.fetched += [attributes["href"]] if tag == "link" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


VARIANTS = {
    "demo": lambda: results(),
    "ended": lambda: results(ended=("language", "replace", 1, 3)),
    "one seed": lambda: results(seeds=1),
    "one generation": lambda: results(generations=1),
    "grid": lambda: grid(generations=4),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_page_is_whole_and_offline(tmp_path, name):
    VARIANTS[name]().save(tmp_path)
    path = write(tmp_path)
    page = path.read_text()
    assert path == tmp_path / "report.html"
    assert len(page) < 3_000_000
    assert check(page).fetched == []
    assert not re.search(r"@import|url\(\s*['\"]?http", page[: page.index("<script")])
    for word in ("Does training on your own samples", "refeed run demo --workers 2", "arXiv:2404.01413", "Apache-2.0"):
        assert word in page
    assert ("lineages ended early" in page) == (name == "ended")
    ids = re.findall(r'\bid="([^"]+)"', page[: page.index("<script")])
    assert len(ids) == len(set(ids))


def test_figures_lie_beside_the_page(tmp_path):
    results().save(tmp_path)
    page = write(tmp_path).read_text()
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert {"regression-excess-risk.svg", "language-cross-entropy.pdf", "language-training-sets.svg"} <= set(names)
    assert sorted(re.findall(r'href="figures/([^"]+)"', page)) == names
    assert (tmp_path / "figures" / "language-cross-entropy.pdf").read_bytes().startswith(b"%PDF")


def test_hostile_text_stays_text(tmp_path):
    case = regression_case(HOSTILE, d=10, T=100, s=1.0)
    made = results(cases=[case, language_case()], generations=3)
    for entry in made.exhibits:
        entry["items"] = [HOSTILE]
    made.run["command"] = made.study["question"] = HOSTILE
    try:
        made.save(tmp_path)
    finally:
        made.run["command"] = "refeed run demo --workers 2"
    page = write(tmp_path).read_text()
    checker = check(page)
    assert checker.scripts == 2 + len(list((tmp_path / "figures").glob("*.svg")))
    assert checker.fetched == []
    assert HOSTILE not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_images_are_shown_only_if_they_are_images(tmp_path):
    made = results(generations=2)
    png = "data:image/png;base64,iVBORw0KGgo="
    for entry in made.exhibits:
        entry |= {"kind": "image", "items": [png, "https://example.org/x.png", "data:text/html;base64,AAAA"]}
    made.save(tmp_path)
    assert set(check(write(tmp_path).read_text()).fetched) == {png}


def test_a_law_that_does_not_hold_is_said_and_not_fatal(tmp_path):
    case = regression_case("regression", d=10, T=100, s=1.0)
    case["laws"]["replace"][0]["parameters"]["T"] = 11
    case["laws"]["accumulate"][0]["law"] = "regression.acumulate"
    results(cases=[case]).save(tmp_path)
    page = write(tmp_path).read_text()
    assert "regression.replace is not drawn: T &gt;= d + 2 is needed" in page
    assert "did you mean regression.accumulate" in page


def test_nothing_measured_still_makes_a_page(tmp_path):
    made = results()
    nothing = pa.Table.from_pylist([])
    Results(made.study, nothing, nothing, made.outcomes, [], {}).save(tmp_path)
    page = write(tmp_path).read_text()
    assert page.count("nothing finite was measured") == len(made.cases)  # a card for each headline; the rest is one sentence
    assert "Nothing finite was measured of: " in page


def test_curves_draw_every_lineage_theory_and_floor():
    made = results()
    rows = specification(curves(made, ["regression"], "excess_risk"))["data"]["values"]
    assert {row["s"] for row in rows if row["k"] == "l"} == {0, 1, 2}
    assert [row["y"] for row in rows if row["k"] == "t" and row["p"] == "replace"][-1] == pytest.approx(50 / 89, rel=1e-4)
    reference = [row for row in curves(made, ["language"], "cross_entropy").to_dict()["data"]["values"] if row["k"] == "f"]
    assert [row["y"] for row in reference] == [0.948] * 5


def test_axis_is_logarithmic_only_where_values_span_a_decade():
    spec = json.dumps(specification(curves(grid(generations=10, seeds=2), ["T100-s1"], "excess_risk")))
    assert '"type": "log"' in spec
    assert '"type": "log"' not in json.dumps(specification(curves(results(), ["language"], "cross_entropy")))


def test_many_lineages_stay_small():
    made = results(cases=[regression_case("regression", d=3, T=20, s=1.0)], seeds=300, generations=4)
    chart = curves(made, ["regression"], "excess_risk")
    assert "60 of 300 lineages drawn" in " ".join(chart.to_dict()["title"]["subtitle"])
    assert len(to_svg(specification(chart))) < 400_000


def test_composition_keeps_real_rows_apart():
    rows = composition(results(), "language").to_dict()["data"]["values"]
    last = {row["b"]: row["n"] for row in rows if row["p"] == "accumulate" and row["g"] == 5}
    assert last == {"real": 400, "1": 400, "2": 400, "3": 400, "4": 400}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.2345, "1.23"), (-0.0123, "−0.0123"), (99.96, "100"), (123456, "123456"), (1.5e7, "1.50e7"),
     (2.5e-9, "2.50e−9"), (float("inf"), "∞"), (None, "–"), (float("nan"), "–"), (-3e-12, "−3.00e−12")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_words():
    assert (count(1, "policy"), count(2, "policy"), count(1200, "seed")) == ("1 policy", "2 policies", "1,200 seeds")
    assert (duration(3.14159), duration(112.4), duration(7300)) == ("3.14 s", "1 min 52 s", "2 h 1 min")
    assert tag("p", "a < b", None, cls="x", hidden=True) == '<p class="x" hidden>a &lt; b</p>'


def test_a_grid_over_the_share_of_parameters_has_a_growth_map(tmp_path):
    """Laws and lineages beside each other, the instability marked; the paper's grid of three sizes has none."""
    cases = [regression_case(f"T{T}", d=8, T=T, s=1.0, labels={"source.rows": T}) for T in (12, 16, 24, 40)]
    made = results(cases=cases, generations=4)
    chart = growth(made, [case["name"] for case in cases])
    titles = {(panel["title"]["text"], panel["title"]["subtitle"]) for panel in chart.to_dict()["concat"] if "title" in panel}
    assert {("replace", "law: exact"), ("replace", "lineages"), ("reservoir", "law: classical limit")} <= titles
    page = write(made.save(tmp_path)).read_text()
    assert "How the error grows" in page
    paper = grid()
    assert growth(paper, list(paper.cases)) is None


def with_curves():
    """The study of one language case, with a curve of three points and a quantity that never changes."""
    made = results(cases=[language_case()], generations=3)
    [case] = made.study["cases"]
    points = [
        {"name": f"curve_{n}", "unit": "nats/token", "series": "learning curve", "along": "share of training", "at": n / 3,
         "reference": "floor" if n == 3 else ""} for n in (1, 2, 3)
    ]  # fmt: skip
    flat = [{"name": "longer_than_context", "unit": "1"}, {"name": "floor", "role": "reference"}]
    case["metrics"].append({"name": "more", "quantities": [*points, *flat]})
    rows = [row for row in made.scores.to_pylist() if row["quantity"] == "cross_entropy"]
    more = [row | {"quantity": f"curve_{n}", "value": row["value"] + 1 / n} for row in rows for n in (1, 2, 3)]
    more += [row | {"quantity": name, "value": 0.25} for row in rows for name in ("longer_than_context", "floor")]
    return Results(made.study, pa.Table.from_pylist(made.scores.to_pylist() + more), made.composition, made.outcomes)


def test_points_of_one_curve_are_drawn_together(tmp_path):
    made = with_curves()
    [curve] = series(made, "language")
    assert list(curve.places.items()) == [("curve_1", 1 / 3), ("curve_2", 2 / 3), ("curve_3", 1.0)]
    drawn = curve_chart(made, "language", curve).to_dict(validate=False)
    points = drawn["data"]["values"]
    seen = {(row["p"], row["g"], row["x"]): row["y"] for row in points}
    accumulate = made.lineages("language", "accumulate", "curve_2").at(3).values()
    assert seen["accumulate", "3", 2 / 3] == pytest.approx(sum(accumulate) / 3, rel=1e-4)
    assert seen["replace", "real", 1.0] == 0.25
    assert len(points) == 3 * (3 * 3 + 1)
    made.save(tmp_path)
    page = write(tmp_path).read_text()
    check(page)
    assert (tmp_path / "figures" / "language-learning-curve.svg").exists()
    assert not list((tmp_path / "figures").glob("*curve-1*"))


def test_what_never_changes_is_a_sentence_and_no_figure(tmp_path):
    with_curves().save(tmp_path)
    page = write(tmp_path).read_text()
    assert "The same in every generation and lineage: longer than context 0.250." in page
    assert not list((tmp_path / "figures").glob("*longer*"))
