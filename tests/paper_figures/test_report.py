"""The report needs nothing but itself, shows all figures, and escapes what it quotes."""

import base64
import dataclasses
from html.parser import HTMLParser

import pytest

from himoe_theory.plumbing.html import table
from paper_figures.compute import SHIPPED, Stored
from paper_figures.report import report
from simulations import DESCRIPTIONS, Regime, Thresholds

from .fakes import FIGURES, fake_profile
from .synthetic import set_names

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """All tags with their attributes, all text, and whether tags close in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    found = {}
    for each in fake_profile():
        result = each.join([part.run(lambda share: None) for part in each.parts()])
        found[each.name] = Stored(result.assign_attrs(commit="c0ffee"), folder / f"{each.name}.nc")
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Stand-ins for the drawn figures."""
    folder = tmp_path_factory.mktemp("figures")
    for entry in FIGURES:
        (folder / f"{entry.stem}.png").write_bytes(entry.stem.encode())
    return folder


@pytest.fixture
def page(stored, out):
    return Page(report(FIGURES, stored, out, "full"))


def test_the_page_refers_to_nothing_outside_itself(page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster", "background"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:60])
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed"}
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "url(" not in "".join(page.text)
    assert page.open == []


def test_all_figures_are_there_with_words_for_those_who_do_not_see_them(page):
    shown = page.of("img")
    assert [base64.b64decode(image["src"].split(",")[1]).decode() for image in shown] == [e.stem for e in FIGURES]
    assert [image["alt"] for image in shown] == [entry.alt for entry in FIGURES]
    assert all(len(entry.alt) > 40 for entry in FIGURES)


def test_the_contents_lead_somewhere(page):
    places = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [link["href"].removeprefix("#") for link in page.of("a")]
    assert links == [*(entry.stem for entry in FIGURES), "arms", "thresholds", "measurements"]
    assert set(links) == places


def test_every_figure_states_what_is_seen_and_how_to_compute_it(page, stored):
    text = "".join(page.text)
    for entry in FIGURES:
        results = [stored[name].result for name in entry.needs]
        assert all(part in text for part in entry.caption(*results))
        assert f"himoe-figures --profile full --only {entry.number}" in text
    assert "Result regimes: seeds 0, 1, 2; 38 s; cpu, float32; commit c0ffee" in text
    assert stored["regimes"].result.attrs["sources"] in text
    assert '"steps": 40' in text


def test_results_of_the_package_are_said_to_be_drawn_as_they_are(stored, out):
    one = stored["gradients"].result.assign_attrs(seconds=180.0)
    html = report([FIGURES[3]], {"gradients": Stored(one, SHIPPED / "gradients.nc")}, out, "full")
    text = "".join(Page(html).text)
    assert "come with the package and are drawn as they are: himoe-figures --profile full --only 4 draws" in text
    assert "(about 3 minutes of one core), delete paper_figures/evidence/gradients.nc first." in text
    assert "To compute what is missing" not in text


def test_the_processor_is_named_where_it_is_stored(stored, out):
    timed = stored["gradients"].result.assign_attrs(device="cpu", processor="Model <7>", cores=3)
    text = "".join(Page(report([FIGURES[3]], {"gradients": Stored(timed, out / "g.nc")}, out, "full")).text)
    assert "; cpu (Model <7>, 3 cores), float64" in text


def test_thresholds_and_measurements_are_the_ones_in_use(page):
    text = "".join(page.text)
    for name, value in dataclasses.asdict(Thresholds()).items():
        assert f"{name}{value:g}" in text  # neighbouring cells
    assert DESCRIPTIONS["redundancy"] in text


def test_the_arms_are_listed_with_their_regimes(stored, out):
    changed = set_names(stored["regimes"].result, "hi-moe", *[Regime.PARTIAL] * 2, Regime.UNLEARNED)
    page = Page(report(FIGURES, stored | {"regimes": Stored(changed, out)}, out, "full"))
    cells = [text for text in page.text if text.strip()]
    start = len(cells) - cells[::-1].index("hi-moe") - 1
    assert cells[start + 2] == "0.05 inter_group_dense, 0.1 intra_group_global, 0.01 load_per_token"
    assert cells[start + 4 : start + 6] == ["partial 2/3, uneven 3/3", "specialised 3/3, uneven 3/3"]


def test_quoted_text_is_escaped(stored, out):
    hostile = "<img src=x onerror='1'>&amp;"
    result = stored["gradients"].result.assign_attrs(device=hostile, commit=hostile)
    result = result.assign_coords(objective=[hostile, "z"])
    html = report(FIGURES, stored | {"gradients": Stored(result, out)}, out, "full", f" --out {hostile}")
    assert hostile not in html
    page = Page(html)
    assert len(page.of("img")) == len(FIGURES)
    assert f"{hostile} at" in "".join(page.text)
    assert hostile in page.text
    assert "<td>&lt;b&gt;</td>" in table(("a",), [("x", "<b>")])


def test_a_small_profile_says_so(stored, out):
    assert "this page shows that everything works, no more" in report(FIGURES, stored, out, "smoke")
    assert "no more" not in report(FIGURES, stored, out, "full")


def test_some_figures_alone(stored, out):
    alone = Page(report([FIGURES[3]], {"gradients": stored["gradients"]}, out, "full"))
    assert len(alone.of("img")) == 1
    assert "No result of them is shown here." in alone.text
