"""Figures are drawn when something changed, whole or not at all, and equal inputs give equal files."""

import json

import pytest
from matplotlib.figure import Figure

from paper_figures import catalogue, style
from paper_figures import draw as drawing
from paper_figures.catalogue import select
from paper_figures.compute import Stored
from paper_figures.draw import STAMPS, current, draw
from simulations import store

from .fakes import FIGURES, fake_profile

GRADIENTS = FIGURES[3]


@pytest.fixture
def stored(tmp_path):
    """All results, stored."""
    found = {}
    for each in fake_profile():
        result = each.join([part.run(lambda share: None) for part in each.parts()])
        path = tmp_path / "results" / f"{each.name}.nc"
        store.save(result, path)
        found[each.name] = Stored(result, path)
    return found


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_figure_is_written_as_png_and_pdf(tmp_path, stored):
    out = tmp_path / "out"
    assert draw(FIGURES, stored, out) == list(FIGURES)
    stems = ["figure-1-regimes", "figure-2-balance", "figure-3-activation", "figure-4-gradients", "figure-5-digits"]
    assert names(out) == [STAMPS, *(f"{stem}.{kind}" for stem in stems for kind in ("pdf", "png"))]
    for stem in stems:
        assert (out / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
    assert draw(FIGURES, stored, out) == []


def test_a_figure_is_drawn_again_when_its_results_change(tmp_path, stored):
    out = tmp_path / "out"
    draw([GRADIENTS], stored, out)
    before = (out / "figure-4-gradients.png").read_bytes()
    changed = stored["gradients"].result.copy(deep=True)
    changed["max_error"][0, 0] = 1e-3
    store.save(changed, stored["gradients"].path)
    stored["gradients"] = Stored(changed, stored["gradients"].path)
    assert not current(GRADIENTS, stored, out)
    assert draw([GRADIENTS], stored, out) == [GRADIENTS]
    assert (out / "figure-4-gradients.png").read_bytes() != before


def test_a_figure_is_drawn_again_when_its_sources_change(tmp_path, stored, monkeypatch):
    draw([GRADIENTS], stored, tmp_path)
    monkeypatch.setattr(drawing, "source_hash", lambda *packages: "other")
    assert not current(GRADIENTS, stored, tmp_path)


@pytest.mark.parametrize("lost", ["figure-4-gradients.png", "figure-4-gradients.pdf", STAMPS])
def test_a_figure_is_drawn_again_when_a_file_is_gone(tmp_path, stored, lost):
    draw([GRADIENTS], stored, tmp_path)
    (tmp_path / lost).unlink()
    assert draw([GRADIENTS], stored, tmp_path) == [GRADIENTS]
    assert (tmp_path / lost).is_file()


@pytest.mark.parametrize("text", ["{", "[]", '"x"'])
def test_damaged_stamps_mean_drawing_again(tmp_path, stored, text):
    draw([GRADIENTS], stored, tmp_path)
    (tmp_path / STAMPS).write_text(text)
    assert draw([GRADIENTS], stored, tmp_path) == [GRADIENTS]
    assert set(json.loads((tmp_path / STAMPS).read_text())) == {"figure-4-gradients"}


def test_equal_inputs_give_equal_bytes(tmp_path, stored):
    for folder in ("one", "two"):
        draw([GRADIENTS], stored, tmp_path / folder)
    for kind in ("png", "pdf"):
        first, second = (tmp_path / folder / f"figure-4-gradients.{kind}" for folder in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()
        assert b"Date" not in first.read_bytes()


@pytest.mark.deep
def test_processes_draw_the_same_bytes(tmp_path, stored, monkeypatch):
    alone, together = tmp_path / "alone", tmp_path / "together"
    draw(FIGURES[3:], stored, alone)
    monkeypatch.setattr(drawing, "FEW", 1)
    assert draw(FIGURES[3:], stored, together) == list(FIGURES[3:])
    assert {path.name: path.read_bytes() for path in alone.iterdir()} == {
        path.name: path.read_bytes() for path in together.iterdir()
    }


def test_nothing_half_written_stays(tmp_path):
    class Torn(Figure):
        def savefig(self, path, **settings):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(ValueError, match=r"figure\.png` must be a file in a writable folder; got No space left"):
        style.save(Torn(), tmp_path, "figure")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path, stored):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="must be a file in a writable folder"):
        draw([GRADIENTS], stored, tmp_path / "file")
    with pytest.raises(ValueError, match=r"x\.txt` must be a file in a writable folder"):
        drawing.write(tmp_path / "file" / "x.txt", "text")


def test_select_takes_numbers_and_names(monkeypatch):
    monkeypatch.setattr(catalogue, "FIGURES", FIGURES)
    assert [entry.number for entry in select([])] == [1, 2, 3, 4, 5]
    assert [entry.number for entry in select(["digits", "1"])] == [1, 5]
    assert [entry.number for entry in select(["5", "digits"])] == [5]
    with pytest.raises(ValueError, match=r"`only` must be among 1 \(regimes\), .*; got '6'"):
        select(["6"])
