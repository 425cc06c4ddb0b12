"""Windows of a corpus: a function of seed and step, with every token beside its successor and its domain."""

import numpy as np
import pytest

from simulations.data.corpus import Corpus, Part


def counting(train=1000, validation=101, vocabulary=5000):
    """Token number i at place i, domain i // 10 % 3."""
    parts = [
        Part(np.arange(n, dtype=np.uint16), (np.arange(n) // 10 % 3).astype(np.uint8)) for n in (train, validation)
    ]
    return Corpus(*parts, vocabulary, "token", ("a", "b", "c"), {})


def test_targets_follow_tokens_and_domains_belong_to_them():
    batch = counting().batch(3, 7, sequences=20, context=16)
    assert batch.tokens.shape == (20, 16)
    np.testing.assert_array_equal(batch.tokens[:, :1] + np.arange(16), batch.tokens)
    np.testing.assert_array_equal(batch.targets, batch.tokens + 1)
    np.testing.assert_array_equal(batch.domains, batch.tokens // 10 % 3)
    np.testing.assert_array_equal(batch.target_domains, batch.targets // 10 % 3)
    assert batch.tokens.dtype == batch.targets.dtype == batch.domains.dtype == np.int32


def test_a_batch_depends_on_seed_and_step_alone():
    corpus = counting()
    first = corpus.batch(3, 7, 20, 16).tokens
    corpus.batch(3, 8, 20, 16)
    np.testing.assert_array_equal(first, counting().batch(3, 7, 20, 16).tokens)
    assert not np.array_equal(first, corpus.batch(3, 8, 20, 16).tokens)
    assert not np.array_equal(first, corpus.batch(4, 7, 20, 16).tokens)


def test_every_window_of_the_training_part_can_be_drawn_and_no_other():
    corpus = counting(train=20)
    starts = corpus.batch(0, 0, 2000, context=16).tokens[:, 0]
    assert set(starts) == {0, 1, 2, 3}


def test_held_out_windows_do_not_overlap_and_reach_the_whole_part():
    corpus = counting(validation=101)
    np.testing.assert_array_equal(corpus.held_out(3, 10).tokens[:, 0], [0, 30, 60])
    np.testing.assert_array_equal(corpus.held_out(99, 10).tokens.ravel(), np.arange(100))


def test_short_parts_and_strange_tokens_are_refused():
    with pytest.raises(
        ValueError, match="`validation` must have at least 102 tokens, one more than the context; got 101"
    ):
        counting().check(101)
    counting().check(100)
    with pytest.raises(ValueError, match="below the vocabulary's size, 10; got"):
        counting(vocabulary=10).batch(0, 0, 50, 16)
    with pytest.raises(ValueError, match="below the vocabulary's size, 100; got 100"):
        counting(vocabulary=100).held_out(99, 10)
