"""Deliberate faults in the training of language models: text, batches, steps, records and checkpoints.

(file, text that occurs once in it, what replaces the text, what is then wrong, tests that are enough).
"""

TESTS = [
    "tests/simulations/data",
    "tests/simulations/language/test_recipe.py",
    "tests/simulations/language/test_checkpoints.py",
    "tests/simulations/language/test_program.py",
    "tests/simulations/language/test_training.py",
]

_CORPUS = "simulations/data/corpus.py"
_TEXT = "simulations/data/text.py"
_TOKENS = "simulations/data/tokens.py"
_RECIPE = "simulations/language/recipe.py"
_PROGRAM = "simulations/language/program.py"
_TRAJECTORY = "simulations/language/trajectory.py"
_TRAINING = "simulations/language/training.py"
_CHECKPOINTS = "simulations/language/checkpoints.py"

FAULTS = [
    (
        _CORPUS,
        "default_rng((seed, _BATCHES, step))",
        "default_rng((seed, _BATCHES))",
        "every step reads the same",
        "batch",
    ),
    (
        _CORPUS,
        "len(self.train.tokens) - context, size",
        "len(self.train.tokens) - context - 1, size",
        "a window is lost",
        "drawn",
    ),
    (
        _CORPUS,
        "domains[:, :-1], domains[:, 1:]",
        "domains[:, 1:], domains[:, :-1]",
        "domains of tokens and targets",
        "belong",
    ),
    (_TEXT, '"finalbody", "handlers", "cases"', '"finalbody", "handlers"', "docstrings inside match", "docstrings"),
    (_TEXT, "3 if content.startswith", "0 if content.startswith", "byte-order mark shifts tags", "docstrings"),
    (
        _TEXT,
        "_draw(name) % _SPLIT == 0",
        "len(kept[False]) % _SPLIT == 3",
        "the split depends on the order",
        "corpus_of_files",
    ),
    (_TOKENS, 'dtype="<u2"', 'dtype=">u2"', "bytes of a token swapped", "read_as"),
    (_RECIPE, "self.learning_rate / (self.warmup + 1)", "0.0", "the first step does nothing", "warm_up"),
    (_RECIPE, 'keys[-1] in ("bias", "scale")', 'keys[-1] == "scale"', "stacked biases decay", "matrices"),
    (_RECIPE, "optax.chain(optax.clip_by_global_norm(self.clip), adamw)", "optax.chain(adamw)", "no clipping", "adamw"),
    (_PROGRAM, "return counts.sum(axis=0)", "return counts[0]", "global loads are the first part's", "global"),
    (_PROGRAM, "g / self.recipe.micro_batches, total", "g, total", "gradients summed instead of averaged", "global"),
    (
        _PROGRAM,
        "return aux.state, aux.tally, gradient, done",
        "return router, aux.tally, gradient, done",
        "routers' states stay",
        "average",
    ),
    (
        _PROGRAM,
        "router = self.model.update_state(router, tally, state.step)",
        "router = self.model.update_state(router, jax.tree.map(lambda x: x // 2, tally), state.step)",
        "half of the batch is counted",
        "bias_moves",
    ),
    (_PROGRAM, "jnp.where(step.finite, a, b)", "a", "a step that is not finite is taken", "finite"),
    (_PROGRAM, "held_out.target_domains.ravel()", "held_out.domains.ravel()", "losses of wrong domains", "by_domain"),
    (
        _PROGRAM,
        "range(0, len(part), size)",
        "range(0, len(part) - size + 1, size)",
        "the last part is lost",
        "by_domain",
    ),
    (
        _TRAJECTORY,
        "recipe.record_steps, index + 1)",
        "recipe.record_steps, index)",
        "counts in the record before",
        "stretch",
    ),
    (
        _TRAINING,
        "self.corpus.batch(self.seed, index,",
        "self.corpus.batch(self.seed, index - first,",
        "data from the start again",
        "rest",
    ),
    (_CHECKPOINTS, "part.rename(final)\n    files.sync", "files.sync", "nothing is stored", "bit_for_bit"),
    (_CHECKPOINTS, "if now.get(name) != recorded:", "if name not in now:", "changed bytes go unseen", "watched"),
    (_CHECKPOINTS, "[:-KEPT]", "[:-1]", "only one stays", "newest"),
]
