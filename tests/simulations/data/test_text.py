"""The library's text: domains against tokenize, the split, what is left out, and that it does not change."""

import hashlib
import io
import json
import tokenize

import numpy as np
import pytest

from simulations.data import text

SAMPLE = '''"""Module, ä."""
import os


class A:
    """Two
    lines."""

    def f(self):
        'single'
        x = """not a docstring"""
        return x

    async def g(self): "inline"; return "no"


if True:
    def h():
        b"bytes are none"
    try:
        pass
    except OSError:
        def late():
            r"""raw"""
match 1:
    case 1:
        def deep():
            """found"""
'''
DOCSTRINGS = ['"""Module, ä."""', '"""Two\n    lines."""', "'single'", '"inline"', 'r"""raw"""', '"""found"""']


def pieces(content: bytes, tags: np.ndarray) -> list[str]:
    """Stretches tagged as docstrings."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (tags == text.DOCSTRINGS).astype(int), [0]])))
    return [content[a:b].decode() for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_docstrings_are_found_where_they_stand(end, mark):
    content = mark + SAMPLE.replace("\n", end).encode()
    tags = text._tag(content)
    assert len(tags) == len(content)
    assert pieces(content, tags) == [found.replace("\n", end) for found in DOCSTRINGS]


def test_files_that_are_not_python_are_left_out():
    assert text._tag("# -*- coding: latin-1 -*-\n# ä".encode("latin-1")) is None
    assert text._tag(b"def f(:\n") is None


@pytest.fixture
def folders(tmp_path):
    library, include = tmp_path / "lib", tmp_path / "include"
    for i in range(40):
        path = library / f"pkg{i % 3}" / f"m{i}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""Doc {i}."""\nvalue = {i}\n')
    for name in ("site-packages/other.py", "test/test_x.py", "_sysconfigdata_linux.py", "config-3/x.py", "bad.py"):
        (library / name).parent.mkdir(exist_ok=True)
        (library / name).write_text("left = 'out'(" if name == "bad.py" else "left = 'out'\n")
    include.mkdir()
    (include / "a.h").write_text("int header;\n")
    (include / "pyconfig.h").write_text("int machine;\n")
    return library, include


def test_a_corpus_of_files(folders):
    corpus = text.read_text(*folders)
    train, held_out = (bytes(part.tokens) for part in (corpus.train, corpus.validation))
    everything = train + held_out
    assert b"out" not in everything
    assert b"machine" not in everything
    files = corpus.manifest["files"]
    assert {file["file"] for file in files} == {f"pkg{i % 3}/m{i}.py" for i in range(40)} | {"a.h"}
    # Split by file: every file is whole, in one part only, and the manifest says in which.
    for file in files:
        folder = folders[1] if file["file"].endswith(".h") else folders[0]
        content = (folder / file["file"]).read_bytes()
        assert (content + b"\0" in held_out, content + b"\0" in train) == (file["validation"], not file["validation"])
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert 0 < sum(file["validation"] for file in files) < 20
    assert corpus.manifest["bytes"] == len(everything) - len(files)
    assert corpus.domains == ("code", "docstrings", "headers")
    assert pieces(train, corpus.train.domains)[0].startswith('"""Doc')
    json.dumps(corpus.manifest)


def test_the_same_files_give_the_same_bytes_and_others_do_not(folders):
    first, again = text.read_text(*folders), text.read_text(*folders)
    assert bytes(first.train.tokens) == bytes(again.train.tokens)
    assert first.manifest == again.manifest
    (folders[0] / "pkg0" / "m0.py").write_text("changed = 1\n")
    assert text.read_text(*folders).manifest["sha256"] != first.manifest["sha256"]


def test_the_size_is_bounded_and_headers_may_be_absent(folders, monkeypatch, tmp_path):
    monkeypatch.setattr(text, "PYTHON_BYTES", 960)
    corpus = text.read_text(folders[0], tmp_path / "nothing")
    assert 930 < corpus.manifest["bytes"] <= 960
    assert corpus.domains == ("code", "docstrings")


def test_no_source_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="must hold Python files for training; got none of 0 usable files"):
        text.read_text(tmp_path, tmp_path)


def test_the_library_of_this_python(monkeypatch):
    monkeypatch.setattr(text, "PYTHON_BYTES", 2**19)
    text.library_text.cache_clear()
    corpus = text.library_text()
    text.library_text.cache_clear()
    assert corpus.vocabulary == 256
    shares = np.bincount(corpus.train.domains, minlength=3) / len(corpus.train.domains)
    assert (shares[:2] > 0.05).all()
    # Docstrings against the tokeniser: every stretch is exactly one string token.
    content = bytes(corpus.train.tokens)
    for found in pieces(content, corpus.train.domains)[:200]:
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(found).readline)]
        assert kinds[0] == tokenize.STRING, found
        assert kinds.count(tokenize.STRING) == 1 or '"\n' in found or "'\n" in found, found
