"""Files are whole or absent, replace nothing but regular files, and what the system refuses is one line."""

import os
import socket
import stat
import subprocess
import sys

import pytest

from himoe_theory.plumbing import commands, files
from himoe_theory.plumbing.commands import told
from himoe_theory.plumbing.scratch import scratch


def link(path, target):
    path.symlink_to(target)


def unix_socket(path, target):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


STRANGE = {
    "a symbolic link": link,
    "a pipe": lambda path, target: os.mkfifo(path),
    "a folder": lambda path, target: path.mkdir(),
    "a socket": unix_socket,
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a short name, which sockets need, and a file that nobody may touch."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "here").mkdir()
    return files.Path("here")


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_regular_file_is_refused_and_stays(place, kind):
    path, victim = place / "out", files.Path("victim").absolute()
    STRANGE[kind](path, victim)
    before = os.lstat(path)
    for act in (files.check, files.writable, lambda p: files.write(p, "text"), lambda p: files.append(p, "line")):
        with pytest.raises(ValueError, match=f"`here/out` must be a file; it is {kind}"):
            act(path)
    held = files.locked(path, "held")
    with pytest.raises(ValueError, match=f"must be a file; it is {kind}"), held:
        pass
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_mtime) == (before.st_ino, before.st_mode, before.st_mtime)
    assert victim.read_text() == "mine"
    assert os.listdir(place) == ["out"]


def test_a_device_is_refused():
    with pytest.raises(ValueError, match="`/dev/null` must be a file; it is a device"):
        files.write(files.Path("/dev/null"), "text")
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)


def test_links_that_lead_nowhere_are_links(place):
    (place / "out").symlink_to("nowhere")
    with pytest.raises(ValueError, match="it is a symbolic link"):
        files.write(place / "out", "text")
    assert os.listdir(place) == ["out"]


def test_a_temporary_name_that_is_taken_is_not_written_through(place, monkeypatch):
    """As by someone who knows the name: the file that a link there leads to stays as it is."""
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 16)
    (place / ".out.0000000000000000.part").symlink_to(files.Path("victim").absolute())
    with pytest.raises(ValueError, match="got File exists"):
        files.write(place / "out", "text")
    assert files.Path("victim").read_text() == "mine"


def test_what_comes_while_a_file_is_written_is_not_replaced(place):
    with pytest.raises(ValueError, match="must be a file; it is a symbolic link"), files.whole(place / "out"):
        (place / "out").symlink_to("nowhere")
    with pytest.raises(ValueError, match="must be a new file; there is one"), files.whole(place / "x", replace=False):
        (place / "x").write_text("first")
    assert (place / "x").read_text() == "first"
    assert sorted(os.listdir(place)) == ["out", "x"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027])
def test_modes_are_what_the_mask_leaves(place, umask):
    """Also where a library puts a file of its own in place, as safetensors does."""
    before = os.umask(umask)
    try:
        files.write(place / "plain", "text")
        with files.whole(place / "replaced") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT, 0o600))
    finally:
        os.umask(before)
    for name in ("plain", "replaced"):
        assert stat.S_IMODE(os.stat(place / name).st_mode) == 0o666 & ~umask


def test_replacing_is_asked_for(place):
    files.write(place / "out", b"old", replace=False)
    for act in (files.check, files.writable, lambda p, replace: files.write(p, "new", replace=replace)):
        with pytest.raises(ValueError, match=r"`here/out` must be a new file; .* Replace it with `--force`"):
            act(place / "out", replace=False)
    assert (place / "out").read_bytes() == b"old"
    files.write(place / "out", "néw")
    assert (place / "out").read_bytes() == "néw".encode()
    files.writable(place / "new" / "x")
    assert os.listdir(place / "new") == []


@pytest.mark.parametrize("name", ["a" * 300, "x/" + "a" * 300])
def test_names_that_are_too_long_are_one_line(place, name):
    (place / "x").mkdir()
    for act in (files.check, files.writable, lambda p: files.write(p, "text"), files.read, files.names):
        with pytest.raises(ValueError, match="File name too long") as error:
            act(place / name)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="File name too long"):  # also in a folder that is made for it
        files.writable(place / "made" / name)
    files.write(place / ("é" * 127), "long, and allowed")


def test_reading_refuses_what_would_never_end(place):
    os.mkfifo(place / "pipe")
    with pytest.raises(ValueError, match="`here/pipe` must be a file; it is a pipe"):
        files.read(place / "pipe")
    with pytest.raises(ValueError, match="`/dev/zero` must be a file; it is a device"):
        files.read(files.Path("/dev/zero"))
    with pytest.raises(ValueError, match="`here` must be a file"):
        files.read(place)
    (place / "link").symlink_to(files.Path("victim").absolute())
    assert files.read(place / "link") == b"mine"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b"\xff", b""])
def test_what_is_no_json_is_one_line(place, content):
    (place / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"`here/x\.json` must be JSON; it cannot be read: ") as error:
        files.read_json(place / "x.json")
    assert "\n" not in str(error.value)


def test_folders_that_cannot_be_read_are_named(place, monkeypatch):
    """As for a user whom the system does not let in, which the root of a container never is."""

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    assert files.names(place / "none") == []
    monkeypatch.setattr(files.os, "listdir", refuse)
    with pytest.raises(ValueError, match="`here` must be a folder that can be read; got Permission denied"):
        files.names(place)


def test_only_what_killed_writers_left_is_removed(place):
    others = [".x.0123456789abcdeg.part", ".x.part", "x.0123456789abcdef.part", "y.x.0123456789abcdef.part"]
    for name in (".x.0123456789abcdef.part", *others):
        (place / name).write_text("")
    (place / ".f.ffffffffffffffff.part").symlink_to(files.Path("victim").absolute())
    files.remove_leftovers(place)
    assert sorted(os.listdir(place)) == others
    assert files.Path("victim").exists()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("`a\nb\udcff` must be \x1b[31m good."), 2, r"`a\nb\udcff` must be \x1b[31m good."),
        (PermissionError(13, "Permission denied", "/x\n"), 2, r"the system refuses: `/x\n`: Permission denied."),
        (MemoryError(), 2, "there is too little memory."),
        (KeyboardInterrupt(), 130, "interrupted."),
    ],
)
def test_commands_end_with_one_line(capsys, error, code, line):
    with pytest.raises(SystemExit) as end, told("himoe", "interrupted."):
        raise error
    assert (end.value.code, capsys.readouterr().err) == (code, f"himoe: {line}\n")


HOLDER = """
import os, sys, time
from himoe_theory.plumbing.scratch import scratch
with scratch() as folder:
    (folder / "large").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


BOX = """╭─ Unrecognized options ───────────────────────╮
│ Unrecognized options: --stepz,  3            │
│ ──────────────────────────────────────────── │
│ Perhaps you meant:                           │
│     --steps INT                              │
│         Optimiser steps, not --other. (x)    │
│     --steps {None}|INT                       │
│ ──────────────────────────────────────────── │
│ For full helptext, run himoe-some --help     │
╰──────────────────────────────────────────────╯
"""
ALL = """╭─ Unrecognized ─╮
│ Unrecognized options: nope. │
│ ─────────────────────────── │
│ Available subcommands: a, b │
╰─────────────────────────────╯
"""


@pytest.mark.parametrize(
    ("box", "line"),
    [
        (BOX, "some: Unrecognized options: --stepz, 3; perhaps you meant --steps. See `some --help`.\n"),
        (ALL, "some: Unrecognized options: nope; available subcommands: a, b. See `some --help`.\n"),
        ("", "some: the options cannot be read. See `some --help`.\n"),
    ],
)
def test_a_parser_that_complains_at_length_ends_with_one_line(capsys, box, line):
    def parse():
        print(box, file=sys.stderr)
        raise SystemExit(2)

    with pytest.raises(SystemExit) as stop:
        commands.parsed("some", parse)
    assert (stop.value.code, capsys.readouterr().err) == (2, line)


def test_a_parser_that_does_not_complain_is_left_alone():
    assert commands.parsed("some", lambda: 3) == 3
    with pytest.raises(SystemExit) as stop:
        commands.parsed("some", lambda: sys.exit(0))  # it has printed its help
    assert stop.value.code == 0


def test_scratch_of_a_killed_process_goes_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    (tmp_path / "himoe-scratch-other").mkdir()  # of somebody who has just made it
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER], **pipes) as holder:
        folder = files.Path(holder.stdout.readline().strip())
        with scratch() as own:
            assert own.is_dir()
            assert (folder / "large").exists()  # it is alive
        assert not own.exists()
        holder.kill()
        holder.wait()
        assert folder.exists()
        with scratch():
            assert not folder.exists()
    assert os.listdir(tmp_path) == ["himoe-scratch-other"]
