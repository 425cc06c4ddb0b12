"""What users bring, from end to end: one file with an arm, a router, data and an expert, in runs and in sweeps."""

import dataclasses
import functools
import json
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from himoe_theory import Partition
from himoe_theory.plumbing.bring import Place
from simulations import Layer, arms, choose, simulate
from simulations.__main__ import main
from simulations.fields import build
from simulations.language import checkpoints
from simulations.language.program import Program
from simulations.language.training import Run
from simulations.provenance import describe
from simulations.store import read_result
from simulations.sweep import Store, grid, local, read_design, read_sweep, resume, sweep
from simulations.sweep.plan import plan

from .language import small

ARMS = """
import dataclasses
import jax
from himoe_theory import Router, SoftmaxThenMask, TopK, routers
from himoe_theory.scores import Score
from simulations.arms import Arm

@dataclasses.dataclass(frozen=True)
class Sharp(Score):
    slope: float = 2.0

    def log(self, logits):
        return jax.nn.log_softmax(self.slope * logits)

fixed = Arm("mine-of-four", routers.gshard(4, 1), {"load": 0.01}, "top-1 of four")

def mine(partition, per_group):
    return Arm("mine", routers.moge(partition, per_group), {"p_squared": 0.1}, "MoGE with the sum of squared means")

def masked(partition, per_group):
    return Router("masked", partition, TopK(1), "mine", score=Sharp(), weighting=SoftmaxThenMask())
"""

DATA = """
import dataclasses
import jax
import jax.numpy as jnp
from simulations.data import Batch, Data
from strength import STRENGTH

@dataclasses.dataclass(frozen=True)
class Signs(Data):
    scale: float = 1.0
    task, dim, outputs, num_labels = "regression", 4, 1, 2

    def truth(self, rng):
        return {"map": STRENGTH * rng.standard_normal((4, 1)).astype("float32")}

    def draw(self, truth, key, tokens):
        x = self.scale * jax.random.normal(key, (tokens, 4), "float32")
        labels = (x[:, 0] > 0).astype("int32")
        return Batch(x, jnp.where(labels[:, None] > 0, 1.0, -1.0).astype("float32") * (x @ truth["map"]), labels)

    def test(self, truth, key, tokens):
        return self.draw(truth, key, tokens)
"""

EXPERT = """
import dataclasses
from simulations import Expert

@dataclasses.dataclass(frozen=True)
class Scaled(Expert):
    start: float = 0.1
    at_start = ("start",)

    def init(self, rng, dim, outputs):
        return {"factor": self.start * rng.standard_normal((dim, outputs)).astype("float32")}

    def apply(self, parameters, x):
        return 2.0 * x @ parameters["factor"]
"""

TERM = """
from himoe_theory.objectives import Objective

def value(view):
    return STRENGTH * (view.routing.probs**2).sum(axis=1).mean()

STRENGTH = 1.0
peaked = Objective("peaked", value)
"""

FILES = {"arms": ARMS, "data": DATA, "expert": EXPERT, "term": TERM, "strength": "STRENGTH = 1.0\n"}
TINY = {"training.steps": 2, "training.batch": 16, "training.test_tokens": 16, "router.experts": 4, "router.groups": 2}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of a user's."""
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def mine(**fields):
    brought = {"arm": "arms.py:mine", "data.kind": "data.py:Signs", "layer.expert.kind": "expert.py:Scaled"}
    brought |= {"terms.term.py:peaked": 0.5}
    return TINY | brought | fields


def test_a_setting_of_what_users_bring(files: Path):
    setting = build(mine(**{"router.kind": "arms.py:masked", "data.scale": 2.0}), Place(files))
    assert (setting.arm.name, dict(setting.arm.terms)) == ("mine", {"p_squared": 0.1, "peaked": 0.5})
    assert setting.arm.router.name == "masked"
    assert setting.arm.router.partition == Partition.equal(4, 2)
    assert setting.data.scale == 2.0
    assert type(setting.layer.expert).__name__ == "Scaled"
    steeper = grid({"router.score.slope": [3.0]}, fixed=mine(**{"router.kind": "arms.py:masked"}))
    (steeper,) = dataclasses.replace(steeper, place=Place(files)).settings()
    assert steeper.arm.router.score.slope == 3.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data.kind": "data.py:Signs", "data.loudness": 1.0},
            r"`loudness` must be a field of data\.py:Signs; got 1\.0",
        ),
        ({"arm": "arms.py:masked"}, r"`arms\.py:masked` must give an Arm; got Router"),
        ({"arm": "arms.py:Sharp"}, r"`arms\.py:Sharp` must give an Arm; got Sharp Sharp\(slope=2\.0\)"),
        ({"arm": "arms.py:minne"}, r"`arms\.py` must hold `minne`; of this kind it holds fixed, mine, masked"),
        ({"arm": "arms.py:mine", "terms.peak": 1.0}, r"`terms` must name known objectives; got 'peak'"),
        (
            {"router.kind": "arms.py:masked", "router.score.slop": 1.0},
            r"`router.score.slop` must be a field of 'Sharp'",
        ),
        ({"terms.term.py:value": 1.0}, r"`term\.py:value` must be an Objective, or a function .*; it asks for view"),
    ],
)
def test_what_does_not_fit_is_one_line(fields: dict, message: str, files: Path):
    design = dataclasses.replace(grid({}, fixed=fields), place=Place(files))
    with pytest.raises(ValueError, match=message) as caught:
        design.settings()
    assert "\n" not in str(caught.value)


def test_an_arm_that_is_no_function_has_its_own_sizes(files: Path):
    text = f"{files}/arms.py:fixed"
    assert build({"arm": text}).arm.router.partition.num_experts == 4
    with pytest.raises(ValueError, match=r"must be a function .* it has N 4, M 1; got router.experts = 8\."):
        build({"arm": text, "router.experts": 8})
    chosen = choose([text, "gshard"], arms())
    assert [arm.name for arm in chosen] == ["mine-of-four", "gshard"]


def test_a_result_lists_what_was_brought(files: Path):
    setting = build(mine(**{"router.kind": "arms.py:masked"}), Place(files))
    result = simulate([setting.arm], setting.data, setting.layer, setting.training, [0, 1])
    assert np.isfinite(result["test_error"]).all()
    listed = {each["name"]: each for each in json.loads(result.attrs["brought"])}
    assert {name: each["file"] for name, each in listed.items()} == {
        "Sharp": "arms.py",
        "Signs": "data.py",
        "Scaled": "expert.py",
        "value": "term.py",
    }
    (files / "strength.py").write_text("STRENGTH = 2.0\n")
    again = build(mine(**{"router.kind": "arms.py:masked"}), Place(files))
    other = simulate([again.arm], again.data, again.layer, again.training, [0, 1])
    hashes = {each["name"]: each["sha256"] for each in json.loads(other.attrs["brought"])}
    assert hashes["Signs"] != listed["Signs"]["sha256"]
    assert hashes["Scaled"] == listed["Scaled"]["sha256"]
    # Twice the map, and experts that start near zero: about four times the error. Not what was compiled before.
    ratio = other["test_error"].isel(step=0) / result["test_error"].isel(step=0)
    assert ((ratio > 3) & (ratio < 5)).all()


DESIGN = """
seeds = 2
runs_per_chunk = 2
[fixed]
arm = "arms.py:mine"
layer.expert.kind = "expert.py:Scaled"
terms."term.py:peaked" = 0.5
router = { experts = 4, groups = 2 }
training = { steps = 2, batch = 16, test_tokens = 16 }
[grid]
data.kind = ["data.py:Signs", "clusters"]
"""


def test_a_sweep_of_what_users_bring(files: Path):
    """In processes of its own, which get the content of files; read without running it; refused after a change."""
    (files / "design.toml").write_text(DESIGN)
    design = read_design(files / "design.toml")
    store = sweep(design, files / "results" / "store", executor=local(1))
    store.hashes[next(iter(store.hashes))] = None  # as if a chunk were still to come
    store._write_manifest()

    (files / "strength.py").write_text("STRENGTH = 2.0\n")
    message = r"store` must be resumed by the same data\.py:Signs; got \w{12}, the store was made by \w{12}\. Go back"
    with pytest.raises(ValueError, match=message):
        resume(store.folder, executor=local(1))
    with pytest.raises(ValueError, match=message):
        sweep(design, store.folder, executor=local(1))

    (files / "data.py").write_text("raise OSError('nobody asked for this')")
    found = read_sweep(store.folder)
    assert [found.sizes[axis] for axis in ("data.kind", "seed", "expert")] == [2, 2, 4]
    with pytest.raises(ValueError, match=r"data\.py` must load; got OSError: nobody asked for this \(line 1\)"):
        resume(store.folder, executor=local(1))

    (files / "data.py").unlink()
    with pytest.raises(ValueError, match=r"data\.py` must be a Python file that can be read; there is none"):
        resume(store.folder, executor=local(1))


def test_a_store_moves_with_its_files(files: Path):
    """To another machine, say; or alone, as long as the files are where they were."""
    design = dataclasses.replace(grid({}, fixed=mine(), seeds=1), place=Place(files / "mine"))
    (files / "mine").mkdir()
    for file in files.glob("*.py"):
        file.rename(files / "mine" / file.name)
    store = Store.create(made(files / "store"), design, 1)
    alone, both = made(files / "a"), made(files / "b")
    store.folder.rename(alone / "store")
    assert Store.open(alone / "store").design_with_sources().place.folder == files / "mine"
    (alone / "store").rename(both / "store")
    (files / "mine").rename(both / "mine")
    found = Store.open(both / "store").design_with_sources()
    assert found.place.folder.resolve() == both / "mine"
    assert found.hashes_brought() == dataclasses.replace(design, place=Place(both / "mine")).hashes_brought()


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_chunks_travel_as_sources(files: Path):
    """To a machine that has no such files; not as objects, which would need their modules."""
    design = dataclasses.replace(grid({}, fixed=mine(), seeds=1), place=Place(files)).with_sources()
    chunk = plan(design)[0]
    sent = pickle.dumps(chunk)
    assert b"STRENGTH = 1.0" in sent
    for file in files.glob("*.py"):
        file.unlink()
    setting = pickle.loads(sent).rows[0].settings[0]
    assert setting == chunk.rows[0].settings[0]


def test_packages_offer_arms_data_and_experts(files: Path, monkeypatch: pytest.MonkeyPatch):
    about = made(files / "their_lab-1.0.dist-info")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-lab\nVersion: 1.0\n")
    points = {"arms": "theirs = arms:mine", "data": "signs = data:Signs", "experts": "scaled = expert:Scaled"}
    (about / "entry_points.txt").write_text("\n".join(f"[himoe.{group}]\n{line}" for group, line in points.items()))
    monkeypatch.syspath_prepend(files)
    fields = {"arm": "theirs", "data.kind": "signs", "data.scale": 2.0, "layer.expert.kind": "scaled"}
    design = grid({}, fixed=TINY | fields, seeds=1)
    (setting,) = design.settings()
    assert (setting.arm.name, setting.data.scale, setting.layer.expert.start) == ("mine", 2.0, 0.1)
    assert set(design.hashes_brought()) == {"theirs", "signs", "scaled"}
    with pytest.raises(ValueError, match=r"must be one of clusters, .*, signs, or FILE\.py:NAME; got 'sign'"):
        grid({}, fixed={"data.kind": "sign"})
    for name in ("arms", "data", "expert", "strength"):
        sys.modules.pop(name, None)


def test_what_packages_offer_is_listed_and_not_loaded(files: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    about = made(files / "their_lab-1.0.dist-info")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-lab\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[himoe.arms]\ntheirs = no_such:mine\n[himoe.objectives]\npeaked = nor:this\n"
    )
    monkeypatch.syspath_prepend(files)
    call(monkeypatch, "arms")
    assert re.search(r"theirs .*of the package", capsys.readouterr().out)
    call(monkeypatch, "fields", "terms.pe")
    said = capsys.readouterr().out
    assert "terms.peaked: a number; as the arm has it" in said
    assert "Coefficient of peaked, of the package their-lab" in said


def test_what_is_typed_in_is_compiled_anew():
    """An expert in no file, and a number that it reads: the same class, another program."""
    space: dict[str, Any] = {}
    text = "import dataclasses\nFACTOR = 1.0\n" + EXPERT.replace("2.0 * x", "FACTOR * x")
    exec(text, space)
    setting = build(TINY | {"data.kind": "clusters"})
    errors = []
    for space["FACTOR"] in (1.0, 100.0):
        result = simulate([setting.arm], setting.data, Layer(space["Scaled"]()), setting.training, [0])
        errors.append((float(result["test_error"][0, 0, 0]), json.loads(result.attrs["brought"])[0]["sha256"]))
    assert errors[0][1] != errors[1][1]
    assert abs(errors[0][0] - errors[1][0]) > 1


def test_functions_are_described_and_not_dropped():
    @dataclasses.dataclass(frozen=True)
    class Held:
        function: Callable[[float], float]

    def shown(function: Callable[..., float]) -> dict:
        found = describe(Held(function))["function"]
        assert json.loads(json.dumps(found)) == found
        return found

    def scaled(c: float) -> Callable[[float], float]:
        return lambda x: c * x

    every = [scaled(1.0), scaled(2.0), functools.partial(scaled(1.0)), functools.partial(scaled, 1.0)]
    assert len({shown(each)["sha256"] for each in every}) == 4
    assert shown(scaled(1.0)) == shown(scaled(1.0))
    assert shown(scaled(1.0))["file"] == "test_bring.py"


def test_a_language_model_is_not_resumed_after_a_change(files: Path):
    def run() -> Run:
        arm = build({"router.experts": 4, "router.groups": 2, "terms.term.py:peaked": 0.5}, Place(files)).arm
        return small.run(files / "checkpoints", model=small.model(arm=arm))

    first = run()
    checkpoints.save(first.folder, 2, {"a": np.zeros(1)}, first.configuration)
    checkpoints.check(first.folder, 2, run().configuration)
    assert Program(first.model, first.recipe) == Program(run().model, run().recipe)
    (files / "term.py").write_text(TERM.replace("1.0", "2.0"))
    with pytest.raises(ValueError, match=r"`model\.arm\.brought\.term\.py:value\.sha256` must be as in .*; got"):
        checkpoints.check(first.folder, 2, run().configuration)
    assert Program(first.model, first.recipe) != Program(run().model, run().recipe)


def test_a_run_from_the_command_line(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    options = "--arm arms.py:mine --term term.py:peaked=0.5 --data data.py:Signs --expert expert.py:Scaled"
    options += " --set data.scale=2 --experts 4 --groups 2"
    monkeypatch.chdir(files)
    call(monkeypatch, "run", *options.split(), *SHORT)
    assert "results/mine.nc" in capsys.readouterr().out
    result = read_result(files / "results" / "mine.nc")
    assert json.loads(result.attrs["configuration"])["data"]["scale"] == 2
    assert np.isfinite(result["term_peaked"]).all()


SHORT = "--seeds 2 --steps 2 --records 1 --batch 16 --set training.test_tokens=16".split()


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["himoe-simulate", *arguments])
    main()
