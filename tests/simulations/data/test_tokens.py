"""Token files: mapped, checked, and refused in one line when they are not what they should be."""

import json
import pickle

import numpy as np
import pytest

from simulations.data import tokens
from simulations.data.tokens import token_files


def write(folder, train, validation, dtype="<u2"):
    np.asarray(train, dtype).tofile(folder / "train.bin")
    np.asarray(validation, dtype).tofile(folder / "val.bin")


def test_files_are_read_as_they_were_written(tmp_path):
    write(tmp_path, range(100), range(50, 90))
    corpus = token_files(tmp_path, 100)
    assert isinstance(corpus.train.tokens, np.memmap)
    np.testing.assert_array_equal(corpus.train.tokens, np.arange(100))
    np.testing.assert_array_equal(corpus.validation.tokens, np.arange(50, 90))
    assert (corpus.vocabulary, corpus.unit, corpus.domains) == (100, "token", ("text",))
    assert corpus.manifest["val.bin"]["tokens"] == 40
    assert corpus.batch(0, 0, 4, 8).domains.max() == 0
    json.dumps(corpus.manifest)


def test_the_vocabulary_may_stand_in_a_json_file(tmp_path):
    write(tmp_path, range(10), range(10))
    (tmp_path / "meta.json").write_text('{"vocab_size": 10}')
    assert token_files(tmp_path).vocabulary == 10
    assert token_files(tmp_path, 11).vocabulary == 11


def test_a_change_anywhere_shows_in_the_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "_BLOCK", 7)
    values = np.arange(100)
    write(tmp_path, values, range(10))
    before = token_files(tmp_path, 100).manifest
    values[93] = 0
    write(tmp_path, values, range(10))
    after = token_files(tmp_path, 100).manifest
    assert before["train.bin"] != after["train.bin"]
    assert before["val.bin"] == after["val.bin"]


def test_large_files_are_looked_at_in_evenly_spaced_blocks(monkeypatch):
    monkeypatch.setattr(tokens, "_BLOCK", 10)
    monkeypatch.setattr(tokens, "_BLOCKS", 3)
    assert [start for start, _ in tokens._blocks(np.zeros(95, np.uint16))] == [0, 30, 60]
    assert [(start, len(block)) for start, block in tokens._blocks(np.zeros(25, np.uint16))] == [
        (0, 10),
        (10, 10),
        (20, 5),
    ]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "val.bin").unlink(), r"val\.bin` must be a file of uint16 tokens; there is none"),
        (lambda f: (f / "train.bin").write_bytes(b"123"), r"train\.bin` must hold whole uint16 tokens.*got 3 bytes"),
        (lambda f: (f / "train.bin").write_bytes(b""), "got 0 bytes"),
        (lambda f: np.asarray([1, 2, 10, 3], "<u2").tofile(f / "val.bin"), "size, 10; got 10 at 2"),
        (lambda f: (f / "meta.json").unlink(), r"`vocabulary` must be known; .*meta\.json does not exist"),
        (lambda f: (f / "meta.json").write_text("{"), "must be JSON with a number `vocab_size`"),
        (lambda f: (f / "meta.json").write_text('{"vocab": 3}'), "must be JSON with a number `vocab_size`"),
        (lambda f: (f / "meta.json").write_text('{"vocab_size": "9"}'), "must be a whole number; got '9'"),
        (lambda f: (f / "meta.json").write_text('{"vocab_size": 70000}'), "`vocab_size` must be at most 65536"),
    ],
)
def test_bad_folders_are_refused(tmp_path, spoil, message):
    write(tmp_path, range(10), range(10))
    (tmp_path / "meta.json").write_text('{"vocab_size": 10}')
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        token_files(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_folder_and_a_bad_size(tmp_path):
    with pytest.raises(ValueError, match=r"`data` must be a folder with train\.bin and val\.bin; there is no"):
        token_files(tmp_path / "none")
    with pytest.raises(ValueError, match="`vocabulary` must be at most 65536"):
        token_files(tmp_path, 2**17)


def test_pickles_are_not_opened(tmp_path):
    write(tmp_path, range(10), range(10))
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 10}))
    with pytest.raises(ValueError, match="`vocabulary` must be known"):
        token_files(tmp_path)
