"""Training does what it says: batched arms equal single ones, a step is the closed-form step, runs are reproducible."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import objectives as obj
from himoe_theory.objectives import OBJECTIVES, Objective, View
from simulations import (
    Arm,
    Clusters,
    Digits,
    Layer,
    Linear,
    Regime,
    Training,
    TwoLayer,
    arms,
    choose,
    closed_form,
    name_of,
    simulate,
)
from simulations.training import Program, Source, group, task_loss

ARMS = arms()
SHORT = Training(steps=6, batch=32, records=2, test_tokens=64)
GROUPED = [ARMS[name] for name in ("moge", "moge-intra", "hi-moe")]


@pytest.fixture(scope="module")
def grouped():
    return simulate(GROUPED, Clusters(outputs=2), Layer(), SHORT, range(2))


def test_arms_of_one_structure_share_a_program():
    families = [sorted(arm.name for arm in g.arms) for g in group(list(ARMS.values()))]
    assert sorted(map(len, families)) == [1, 1, 1, 1, 1, 1, 6, 7]
    by_size = {len(f): f for f in families}
    assert by_size[6] == ["hi-moe", "moge", "moge-bias", "moge-inter", "moge-intra", "moge-intra-inter"]
    assert by_size[7] == ["free-top-k", "gshard", "guo-all", "guo-aux", "guo-aux-lo", "guo-aux-lv", "guo-none"]


def test_a_batched_arm_equals_the_arm_alone(grouped):
    alone = simulate([ARMS["hi-moe"]], Clusters(outputs=2), Layer(), SHORT, [1])
    both = grouped.sel(arm=["hi-moe"], seed=[1])
    eps = np.finfo(np.float32).eps
    for name in ("test_loss", "test_error", "soft_load", "collision_information"):
        np.testing.assert_allclose(alone[name], both[name], rtol=100 * eps)
    np.testing.assert_array_equal(alone["hard_load"], both["hard_load"])


def test_arms_without_any_number_run_side_by_side():
    """No coefficient and no controller: nothing but the count of arms says how many there are."""
    twins = [ARMS["dense"], dataclasses.replace(ARMS["dense"], name="twin")]
    result = simulate(twins, Clusters(outputs=2), Layer(), SHORT, range(2))
    assert list(result.arm.values) == ["dense", "twin"]
    np.testing.assert_array_equal(result["test_loss"].sel(arm="dense"), result["test_loss"].sel(arm="twin"))


def test_equal_seeds_give_equal_numbers_and_other_seeds_others(grouped):
    again = simulate(GROUPED, Clusters(outputs=2), Layer(), SHORT, range(2))
    for name in grouped.data_vars:
        np.testing.assert_array_equal(grouped[name], again[name])
    assert (grouped["test_loss"].sel(seed=0) != grouped["test_loss"].sel(seed=1)).all()


def test_arms_start_equal_and_end_different(grouped):
    loss = grouped["test_loss"]
    assert (loss.isel(step=0).std("arm") < 1e-6).all()
    assert (loss.isel(step=-1).std("arm") > 0).all()


def test_one_step_of_sgd_is_the_closed_form_step():
    """With experts at 0 the task has no gradient in the gate: what moves it is the objectives' closed forms."""
    arm = ARMS["hi-moe"].with_terms(load_per_token=0.3, intra_group_global=0.7, inter_group_dense=0.2, z=0.1)
    training = Training(steps=1, batch=16, records=1, learning_rate=0.5, optimizer="sgd", test_tokens=8)
    members = group([arm])[0]
    source = Source(Clusters(), training)
    program = Program(source, Layer(Linear(init_std=0.0), gate_std=1.0), members.gate, members.terms)
    settings = members.settings(training, 1)
    keys = jax.vmap(jax.random.key)(jnp.zeros(1, jnp.uint32))
    first = jnp.zeros((), jnp.int32)
    batches = source.block(source.truths([0]), keys, first)
    before = program.begin([0], settings)
    after = program.advance(before, settings, batches, keys, first)

    x, gate = batches.x[0, 0].astype(float), before.parameters["gate"][0, 0].astype(float)
    routing, state = arm.router.step(None, jnp.zeros(8), x @ gate.T)
    slope = sum(c * OBJECTIVES[name].gradient(View(routing)) for name, c in arm.terms.items())
    np.testing.assert_allclose(after.parameters["gate"][0, 0], gate - 0.5 * slope.T @ x, rtol=1e-5, atol=1e-6)
    assert np.abs(slope.T @ x).max() > 1e-3
    np.testing.assert_allclose(after.router[0, 0], state, rtol=1e-5)


def _scaled(factor, name="mine", **fields):
    return Objective(name, lambda view: factor * obj.p_squared(view.routing.logits), **fields)


def test_an_objective_redefined_under_its_name_is_compiled_again(monkeypatch):
    """At 1 and at 100 times its size, one after the other and together; a program knows it by its functions."""
    arms = []
    for factor in (1.0, 100.0):
        monkeypatch.setitem(OBJECTIVES, "mine", _scaled(factor))
        arms.append(Arm(f"{factor:g}", ARMS["gshard"].router, {"mine": 0.1}, ""))
    alone = [simulate([arm], Clusters(outputs=2), Layer(), SHORT, [0]) for arm in arms]
    both = simulate(arms, Clusters(outputs=2), Layer(), SHORT, [0])
    for arm, one in zip(arms, alone, strict=True):
        np.testing.assert_array_equal(both["term_mine"].sel(arm=arm.name), one["term_mine"].sel(arm=arm.name))
    first = [float(one["term_mine"].isel(seed=0, arm=0, step=0)) for one in alone]
    np.testing.assert_allclose(first[1], 100 * first[0], rtol=1e-6)
    loss = [one["test_loss"].values.ravel() for one in alone]
    np.testing.assert_allclose(loss[0][0], loss[1][0], rtol=1e-6)
    assert abs(loss[0][-1] - loss[1][-1]) > 1e-4


def test_an_objective_of_a_listed_name_and_other_functions_takes_the_general_path():
    """The closed form of a step belongs to our functions; autodiff of the same formula ends at the same place."""
    own = dataclasses.replace(OBJECTIVES["p_squared"], value=_scaled(1.0).value, gradient=None)
    assert not own.closed_form
    ours, theirs = (Arm("a", ARMS["gshard"].router, {term: 0.3}, "") for term in ("p_squared", own))
    found = [simulate([arm], Clusters(outputs=2), Layer(), SHORT, [0])["test_loss"].values for arm in (ours, theirs)]
    applies = [
        closed_form.applies(Layer(), arm.router, arm.gate, tuple(arm.objectives.values()), "regression")
        for arm in (ours, theirs)
    ]
    assert applies == [True, False]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_an_arm_keeps_the_objectives_that_it_was_made_with(monkeypatch):
    old, new = _scaled(1.0), _scaled(2.0)
    monkeypatch.setitem(OBJECTIVES, "mine", old)
    arm = ARMS["moge"].with_terms(mine=0.1)
    monkeypatch.setitem(OBJECTIVES, "mine", new)
    assert arm.with_terms(load=0.2).objectives["mine"] is old
    assert dataclasses.replace(arm, summary="other").objectives["mine"] is old
    renewed = arm.with_terms({new: 0.3})
    assert renewed.objectives["mine"] is new
    assert renewed.terms == {"load_per_token": 0.01, "mine": 0.3}
    with pytest.raises(ValueError, match="`terms` must name each objective once; 'mine' is there 2 times"):
        Arm("twice", arm.router, {old: 0.1, new: 0.1}, "")
    monkeypatch.delitem(OBJECTIVES, "mine")
    assert arm.with_terms(mine=0.4).terms["mine"] == 0.4


def test_an_objective_that_needs_what_the_layer_has_not():
    above = Objective("above", lambda view: view.above.logits.sum(), needs=frozenset({"above"}))
    arm = Arm("a", ARMS["moge"].router, {above: 0.1}, "")
    with pytest.raises(ValueError, match="above needs `above`, which is not there for it here"):
        simulate([arm], Clusters(outputs=2), Layer(), SHORT, [0])


def test_every_arm_trains_and_is_measured(no_key_twice):
    result = simulate(list(ARMS.values()), Clusters(outputs=2), Layer(), SHORT, range(2))
    assert list(result.arm.values) == list(ARMS)
    assert np.isfinite(result["test_loss"]).all()
    load = result["hard_load"].sum("expert")
    kept = {arm: int(ARMS[arm].router.routes) for arm in ARMS}
    for arm in set(ARMS) - {"st-moe"}:
        np.testing.assert_allclose(load.sel(arm=arm), kept[arm], rtol=1e-6)
    assert ((load.sel(arm="st-moe") >= 1) & (load.sel(arm="st-moe") <= 4)).all()
    np.testing.assert_allclose(result["assignment"].sel(arm="dense"), 1.0)
    grouped_only = result["redundancy"].notnull().all(("seed", "step"))
    assert {str(a) for a in result.arm.values[grouped_only]} == {a for a in ARMS if "moge" in a or "hi-moe" in a} | {
        "frozen"
    }
    assert (result["information"] <= 1 + 1e-5).all()
    assert result["information"].sel(arm="planted").min() > 0.999
    assert np.isnan(result["churn"].isel(step=0)).all()
    assert ((result["churn"].isel(step=1) >= 0) & (result["churn"].isel(step=1) <= 1)).all()
    assert (result["churn"].sel(arm="planted").isel(step=1) == 0).all()


def test_digits_are_classified_better_than_by_chance():
    training = Training(steps=60, batch=64, records=2)
    result = simulate([ARMS["moge"]], Digits(), Layer(), training, range(2))
    assert (result["test_error"].isel(step=0) > 0.7).all()
    assert (result["test_error"].isel(step=-1) < 0.5).all()


def test_a_diverged_run_is_a_row_with_a_code():
    training = dataclasses.replace(SHORT, steps=30, optimizer="sgd", learning_rate=1e3)
    result = simulate([ARMS["moge"]], Clusters(), Layer(), training, range(2))
    assert name_of(result, "moge") == (Regime.DIVERGED, 2)
    assert not np.isfinite(result["test_loss"].isel(step=-1)).all()


@pytest.mark.parametrize(("arm", "place"), [("gshard", closed_form), ("loss-free", Program)])
def test_compiles_once_per_shape(monkeypatch, arm, place):
    """Coefficients, lengths of the data, learning rates and initial sizes are numbers to the program."""
    traces = []
    name = "gradients" if place is closed_form else "_loss"
    original = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *arguments: traces.append(1) or original(*arguments))
    for load, mean, rate, std, seed in ((0.01, 4.0, 0.003, 0.1, 0), (0.5, 0.0, 0.01, 0.2, 3)):
        training = dataclasses.replace(SHORT, learning_rate=rate)
        layer = Layer(Linear(std), gate_std=std)
        simulate(
            [ARMS[arm].with_terms(load_per_token=load)],
            Clusters(clusters=5, mean=mean),
            layer,
            training,
            [seed],
            partners=False,
        )
    assert len(traces) == 1


def test_progress_counts_every_step():
    seen = []
    simulate(GROUPED[:1], Clusters(outputs=2), Layer(), SHORT, [0], progress=lambda *now: seen.append(now))
    assert seen == [(done, 18) for part in (0, 6, 12) for done in range(part, part + 7, 3)]  # and two partners


def test_arms_name_known_objectives_and_sources():
    for arm in ARMS.values():
        assert set(arm.terms) <= set(OBJECTIVES)
    with pytest.raises(ValueError, match="got 'lod'"):
        ARMS["moge"].with_terms(lod=1.0)
    with pytest.raises(ValueError, match=r"`terms\[load\]` must be finite and at least 0; got -1"):
        ARMS["moge"].with_terms(load=-1.0)
    with pytest.raises(ValueError, match=r"`arm` must be one of dense, gshard, .*; got 'hi-mo'"):
        choose(["moge", "hi-mo"], ARMS)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Training(steps=0), "`steps` must be at least 1; got 0"),
        (lambda: Training(steps=10, records=3), "`records` must divide `steps`; got 3 records, 10 steps"),
        (lambda: Training(steps=10, records=20), r"`records` must be at most 10 \(steps\); got 20"),
        (lambda: Training(learning_rate=0.0), "`learning_rate` must be above 0; got 0"),
        (lambda: Training(optimizer="adm"), "`optimizer` must be one of adam, sgd, adamw; got 'adm'"),
        (lambda: simulate([], Clusters()), "`number of arms` must be at least 1; got 0"),
        (lambda: simulate(GROUPED, Clusters(), seeds=[]), "`number of seeds` must be at least 1; got 0"),
        (lambda: simulate(GROUPED, Clusters(), seeds=[-1]), "`seeds` must be at least 0; got -1"),
        (lambda: simulate([*GROUPED, GROUPED[0]], Clusters()), "distinct names; got moge, moge-intra, hi-moe, moge"),
    ],
)
def test_bad_input_is_refused_with_its_numbers(build, message):
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_names_and_a_number_of_seeds_are_what_they_stand_for(grouped):
    by_name = simulate(["moge", ARMS["moge-intra"], "hi-moe"], Clusters(outputs=2), Layer("linear"), SHORT, 2)
    assert by_name.identical(grouped.assign_attrs(by_name.attrs))
    assert Layer(expert="two-layer") == Layer(TwoLayer())
    alone = simulate("moge", "clusters", training=SHORT, seeds=1)
    assert alone.sizes["arm"] == 1
    assert (
        alone.attrs["configuration"] == simulate(ARMS["moge"], Clusters(), Layer(), SHORT, [0]).attrs["configuration"]
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(["hi-mo"], "clusters"), "`arm` must be one of dense, .*; got 'hi-mo'"),
        (lambda: simulate(3, "clusters"), "`arms` must be arms or their names; got 3"),
        (lambda: simulate([3], "clusters"), "`arms` must be arms or their names; got 3"),
        (lambda: simulate("moge", "cluster"), "`data` must be a data set or one of clusters, .*; got 'cluster'"),
        (lambda: simulate("moge", Clusters), r"`data` must be a data set, such as Clusters\(\); got <class"),
        (lambda: simulate("moge", "clusters", seeds=0), "`seeds` must be at least 1; got 0"),
        (
            lambda: simulate("moge", "clusters", seeds=2.0),
            "`seeds` must be a number or a list of them; got 2.0",
        ),
        (lambda: simulate("moge", "clusters", "two-layer"), "`layer` must be a Layer; got 'two-layer'"),
        (lambda: simulate("moge", "clusters", training=100), "`training` must be a Training; got 100"),
        (lambda: Layer(expert="deep"), "`expert` must be an expert or one of linear, two-layer, cubic; got 'deep'"),
        (lambda: Layer(expert=TwoLayer), r"`expert` must be an expert, such as TwoLayer\(\), or its name; got <class"),
    ],
)
def test_what_stands_for_nothing_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_task_is_a_mean_over_tokens_and_outputs():
    """By hand: a classification with probabilities 1/2 and 1/4 of the right class, a regression off by 1, 2, 3, 4."""
    classes, numbers = Digits(), Clusters(outputs=2)
    assert (classes.task, numbers.task) == ("classification", "regression")
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]))
    right = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(task_loss(classes, logits, right), 1.5 * np.log(2), rtol=1e-12)
    missed = jnp.array([[1.0, -2.0], [3.0, -4.0]])
    np.testing.assert_allclose(task_loss(numbers, missed, jnp.zeros((2, 2))), 30 / 4 / 2, rtol=1e-12)
