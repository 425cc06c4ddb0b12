"""Routers that are what their parts say, and planted ones that are not."""

import dataclasses
import functools

import jax.numpy as jnp
import pytest

from himoe_theory import (
    AtRandom,
    Capacity,
    Choice,
    Entmax15,
    Everything,
    ExpertChoice,
    GroupedTopK,
    GroupLimited,
    KeepRandomly,
    Mass,
    Partition,
    Renormalised,
    Router,
    Selection,
    Sinkhorn,
    SoftmaxThenMask,
    TopK,
    check,
    routers,
)
from himoe_theory.contract import Outcome
from himoe_theory.contract.ours import ROUTERS

PARTITION = Partition.equal(4, 2)
TIGHT = Capacity(1.0, minimum=1, even=False)


@dataclasses.dataclass(frozen=True)
class Borrowed(Selection):
    """Top-1 of the mean of a token's keys and the last token's, and does not say so."""

    def choose(self, keys, partition, mask):
        last = len(keys.values) - 1 if mask is None else jnp.where(mask, jnp.arange(len(mask)), -1).max()
        both = keys.values + keys.values[last]
        return Choice(jnp.arange(both.shape[1]) == both.argmax(axis=1)[:, None])


@dataclasses.dataclass(frozen=True)
class LastOfEqual(TopK):
    """Top-1, and of equal keys the last."""

    def choose(self, keys, partition, mask):
        experts = keys.values.shape[1]
        best = experts - 1 - keys.values[:, ::-1].argmax(axis=1)
        return Choice(jnp.arange(experts) == best[:, None])


@dataclasses.dataclass(frozen=True)
class Padded(Selection):
    """Top-1, but expert 0 takes whoever has the largest key of all, padding too."""

    def choose(self, keys, partition, mask):
        place = keys.values.max(axis=1).argmax()
        best = jnp.where(jnp.arange(len(keys.values)) == place, 0, keys.values.argmax(axis=1))
        return Choice(jnp.arange(keys.values.shape[1]) == best[:, None])

    @property
    def couples_tokens(self):
        return True


@dataclasses.dataclass(frozen=True)
class Unequal(GroupedTopK):
    """Says one of each group, and takes the two best of all."""

    def choose(self, keys, partition, mask):
        return TopK(2).choose(keys, partition, mask)


@dataclasses.dataclass(frozen=True)
class Half(Renormalised):
    """Says that weights sum to 1; they sum to a half."""

    def weigh(self, log_scores, selected):
        return super().weigh(log_scores, selected) / 2


def built(selection, **parts):
    return Router("built", PARTITION, selection, "himoe-theory", **parts)


def outcome(found, name):
    return found[name].outcome, found[name].claimed


@functools.cache
def of_gshard():
    return check("gshard")


def test_ours_hold_all_that_they_claim():
    found = of_gshard()
    assert found.broken == ()
    assert outcome(found, "causality") == (Outcome.HOLDS, True)
    assert found["load bounds"].text == "it claims none; 0 to 16 tokens an expert found, of 16"
    (table,) = found.tables
    assert table.rows[3] == ("all tokens alike", "0", "2", "0.0 %", "0.0 %")


def test_a_later_token_that_changes_an_earlier_one_without_saying_so():
    found = check(built(Borrowed(), weighting=SoftmaxThenMask()))
    assert {each.name for each in found.broken} == {"batch independence", "causality", "causality in training"}
    assert found["causality"].text == "token 0 selects {0}, and {3} with other later tokens"
    assert found["causality"].example == "logits (0, -0.1, -0.2, -0.3) x 16"


WRONG = [
    (built(LastOfEqual(1)), {"ties": "token 0 selects expert 3 and not 0, at equal logits"}),
    (built(Unequal(1)), {"load bounds": "group 0 is selected 32 times, not 16"}),
    (built(TopK(2), weighting=Half()), {"weights sum to one": "the weights of token 0 sum to 0.5"}),
    (built(Padded(), weighting=SoftmaxThenMask()), {"masks": "token 1 selects {0}, and {1} with padding; "}),
]


@pytest.mark.parametrize(("router", "wanted"), WRONG, ids=["ties", "quotas", "weights", "padding"])
def test_what_is_wrong_fails_its_property(router, wanted):
    broken = {each.name: each.text for each in check(router).broken}
    assert broken.keys() == wanted.keys()
    for name, text in wanted.items():
        assert broken[name].startswith(text)


def test_a_dead_gate_is_said():
    found = check(routers.gshard(4, 1))
    assert found.broken == ()
    assert outcome(found, "task reaches the gate") == (Outcome.FAILS, False)
    assert "is up to 0, as it says" in found["task reaches the gate"].text


def test_what_has_no_contract_is_named():
    with pytest.raises(ValueError, match=r"`thing` must be an Objective or a Router; got int\."):
        check(3)
    with pytest.raises(ValueError, match=r"or one of token_entropy, .*, hi-moe-paper; got 'gshart'\."):
        check("gshart")


FOUND = {
    "a cap on places": (routers.gshard(4, 2, capacity=TIGHT), {"no drops", "causality", "no token without an expert"}),
    "places at random": (
        routers.gshard(4, 2, capacity=dataclasses.replace(TIGHT, order=AtRandom())),
        {"no drops", "causality", "batch independence"},
    ),
    "expert choice": (built(ExpertChoice(2.0)), {"causality", "batch independence", "no token without an expert"}),
    "transport": (built(TopK(2), score=Sinkhorn()), {"causality", "batch independence"}),
    "null experts": (built(TopK(2), nulls=1), {"no drops", "no token without an expert"}),
    "thinned": (routers.st_moe(4, 2, KeepRandomly(0.2)), {"weights sum to one"}),
}
WHOLE = {
    "mass": built(Mass(0.5)),
    "group-limited": built(GroupLimited(2, 1)),
    "a support": built(Everything(), score=Entmax15()),
    "top of a support": built(TopK(3), score=Entmax15()),
}


@pytest.mark.deep
@pytest.mark.parametrize("name", FOUND)
def test_what_is_not_claimed_is_found_and_not_held_against_it(name):
    router, wanted = FOUND[name]
    found = check(router)
    assert found.broken == ()
    assert wanted <= {each.name for each in found.findings if each.outcome is Outcome.FAILS}


@pytest.mark.deep
@pytest.mark.parametrize("name", WHOLE)
def test_other_parts_hold_all_that_they_claim(name):
    assert check(WHOLE[name]).broken == ()


@pytest.mark.deep
@pytest.mark.parametrize("name", ROUTERS)
def test_all_of_ours_hold_all_that_they_claim(name):
    found = check(name)
    assert found.broken == ()
    assert (found["causality in training"].outcome is Outcome.FAILS) == name.startswith("hi-moe")
