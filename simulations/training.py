"""Training: many seeds and settings of one structure at once, as one compiled scan over steps.

Arms of equal structure (same selection, score and kind of controller) differ only in numbers, so they run as one batch.
Data and initial parameters of a seed are the same for every arm: arms are compared on equal draws. In sweeps a seed may
stand here once for each of several data sets that differ in numbers alone; each has its own truth, batches and arms.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from himoe_theory import Router
from himoe_theory.controllers import Tree
from himoe_theory.objectives import Objective

from . import brought, closed_form
from .arms import Arm
from .compiling import OWN_SUMS, QUICK, WIDE, compiled
from .data import Batch, Data
from .events import Every, happen
from .events import check as check_events
from .gates import Gate
from .layer import Layer, Output, Parameters
from .losses import task_loss, term_values
from .numbers import Setting, Settings, stack
from .record import measure
from .schedules import Named, below, factor, named, router_at
from .source import OPTIMIZERS, Source, Training
from .topology import PLAIN, Topology

Configuration = TypeVar("Configuration")


@dataclasses.dataclass(frozen=True)
class Group:
    """Arms that run as one program."""

    arms: tuple[Arm, ...]
    gate: Gate
    terms: tuple[Objective, ...]
    topology: Topology = PLAIN
    schedules: Named = ()
    events: tuple[Every, ...] = ()

    def settings(self, training: Training, seeds: int) -> Settings:
        """The arms' numbers, the same for every seed."""
        return stack([[(arm, training.learning_rate) for arm in self.arms]] * seeds, self.terms)


def group(arms: Sequence[Arm]) -> list[Group]:
    """Arms by structure, in order of first appearance. Arms that mean different objectives by one name are apart."""
    found: dict[Any, list[tuple[list[Arm], dict[str, Objective]]]] = {}
    for arm in arms:
        bare = dataclasses.replace(arm.router, name="batch", source="batch")
        acts = named(arm.schedules), arm.events
        alike = found.setdefault((arm.gate, arm.topology, acts, jax.tree.structure(bare)), [])
        for members, meant in alike:
            if all(meant.get(name, objective) == objective for name, objective in arm.objectives.items()):
                members.append(arm)
                meant.update(arm.objectives)
                break
        else:
            alike.append(([arm], dict(arm.objectives)))
    return [
        Group(tuple(members), gate, tuple(meant[name] for name in sorted(meant)), topology, *acts)
        for (gate, topology, acts, _), alike in found.items()
        for members, meant in alike
    ]


def objectives_of(arms: Sequence[Arm]) -> tuple[Objective, ...]:
    """Objectives of any of the arms, by name."""
    found = {name: objective for arm in arms for name, objective in arm.objectives.items()}
    return tuple(found[name] for name in sorted(found))


class Carry(eqx.Module):
    """All that the next step needs.

    Where the arm has events also what they may change: `limits`, false for experts that may not be chosen, all true at
    first; `offset`, added to the logits of every token, 0 at first; `weights`, of the tokens of every label in the task
    loss, 1 at first.
    """

    parameters: Parameters
    optimizer: Any
    router: Tree
    limits: Bool[Array, "*runs experts"] | None = None
    offset: Float[Array, "*runs experts"] | None = None
    weights: Float[Array, "*runs labels"] | None = None


Measured = dict[str, np.ndarray]


class Evaluation(NamedTuple):
    """What the layer did with the test batch, and the losses there."""

    output: Output
    scalars: dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Program:
    """The training of a group of arms. Hashable, so equal programs compile once."""

    source: Source
    layer: Layer
    gate: Gate
    terms: tuple[Objective, ...]
    brought: tuple[str, ...] = ()
    """As in `Source`."""
    topology: Topology = PLAIN
    schedules: Named = ()
    events: tuple[Every, ...] = ()

    def at(self, settings: Settings, step: Int[Array, ""] | int) -> Settings:
        """The numbers at a step."""
        if not self.schedules:
            return settings
        terms, updates = below("terms.", self.schedules), below("updates.", self.schedules)
        rate = dict(self.schedules).get("training.learning_rate")
        return Settings(
            router_at(settings.router, self.schedules, step),
            {n: c * factor(terms[n], step) if n in terms else c for n, c in settings.coefficients.items()},
            settings.learning_rate if rate is None else settings.learning_rate * factor(rate, step),
            {n: jnp.broadcast_to(factor(by, step), settings.learning_rate.shape) for n, by in updates.items()},
        )

    def begin(self, seeds: Sequence[int], settings: Settings) -> Carry:
        """Initial parameters of every seed, the same for all arms, with fresh optimiser and router states."""
        arms = settings.learning_rate.shape[1]
        return self.begin_with([[self.layer] * arms] * len(seeds), seeds, settings)

    def begin_with(self, layers: Sequence[Sequence[Layer]], seeds: Sequence[int], settings: Settings) -> Carry:
        """The same, with a layer of its own, of equal shapes, for every seed and arm."""
        data, partition = self.source.data, settings.router.partition
        sizes = partition.num_experts, data.dim, data.outputs, self.gate, self.topology, partition.num_groups
        drawn = [
            [layer.init(np.random.default_rng((seed, 1)), *sizes) for layer in row]
            for seed, row in zip(seeds, layers, strict=True)
        ]
        by_seed = [jax.tree.map(lambda *one: np.stack(one), *row) for row in drawn]
        return self._fresh(jax.tree.map(lambda *one: np.stack(one), *by_seed), settings)

    @compiled(OWN_SUMS, QUICK)
    def _fresh(self, parameters: Parameters, settings: Settings) -> Carry:
        """With optimiser and router states as at the start."""
        rates = settings.learning_rate
        moments = jax.vmap(jax.vmap(lambda p, rate: self._optimizer(rate).init(p)))(parameters, rates)
        rows = (self.topology.depth,) if self.topology.depth > 1 else ()
        states = jax.tree.map(lambda x: jnp.broadcast_to(x, (*rates.shape, *rows, *x.shape)), settings.router.init())
        if not self.events:
            return Carry(parameters, moments, states)
        experts, labels = settings.router.partition.num_experts, self.source.data.num_labels
        opened = jnp.ones((*rates.shape, experts), bool), jnp.zeros((*rates.shape, experts), jnp.float32)
        return Carry(parameters, moments, states, *opened, jnp.ones((*rates.shape, labels), jnp.float32))

    def _optimizer(self, learning_rate: Float[Array, ""]) -> optax.GradientTransformation:
        return OPTIMIZERS[self.source.training.optimizer](learning_rate)

    def _loss(
        self, parameters: Parameters, settings: Settings, carry: Carry, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Array, Tree]:
        output, state = self.layer.apply(
            parameters,
            settings.router,
            self.gate,
            carry.router,
            batch.x,
            batch.labels,
            key=key,
            training=True,
            topology=self.topology,
            limits=carry.limits,
            offset=carry.offset,
        )
        weights = None if carry.weights is None else carry.weights[batch.labels]
        loss = task_loss(self.source.data, output.prediction, batch.y, weights)
        for name, value in term_values(self.terms, output, self.topology.costs).items():
            loss = loss + settings.coefficients[name] * value
        return loss, state

    def _move(
        self, carry: Carry, learning_rate: Float[Array, ""], gradient: Parameters, state: Tree, held: dict[str, Array]
    ) -> Carry:
        with jax.numpy_dtype_promotion("standard"):  # optax raises numbers to its integer step count
            optimizer = self._optimizer(learning_rate)
            updates, optimizer = optimizer.update(gradient, carry.optimizer, carry.parameters)
        for name, by in held.items():
            updates = {**updates, name: jax.tree.map(lambda leaf, by=by: leaf * by, updates[name])}
        parameters = optax.apply_updates(carry.parameters, updates)
        return dataclasses.replace(carry, parameters=parameters, optimizer=optimizer, router=state)

    def _update(self, carry: Carry, settings: Settings, batch: Batch, key: PRNGKeyArray) -> Carry:
        gradient, state = jax.grad(self._loss, has_aux=True)(carry.parameters, settings, carry, batch, key)
        return self._move(carry, settings.learning_rate, gradient, state, settings.updates)

    @compiled(OWN_SUMS, QUICK, WIDE)
    def advance(
        self, carry: Carry, settings: Settings, batches: Batch, keys: Key[Array, " seeds"], first: Array
    ) -> Carry:
        """One stride: the steps of `batches` in turn, for all seeds and arms; in closed form where there is one."""
        if self._in_closed_form(settings.router):
            return self.advance_in_closed_form(carry, settings, batches, first)
        return self.advance_by_autodiff(carry, settings, batches, keys, first)

    def _in_closed_form(self, router: Router) -> bool:
        plain = self.topology == PLAIN and not self.events
        return plain and closed_form.applies(self.layer, router, self.gate, self.terms, self.source.data.task)

    def advance_in_closed_form(self, carry: Carry, settings: Settings, batches: Batch, first: Array) -> Carry:
        """Seed by seed, so that one seed's arrays stay in a processor's cache; nothing is random but the batches."""
        move = jax.vmap(self._move)
        times = first + jnp.arange(self.source.training.stride, dtype=jnp.int32)

        def seed(given: tuple[Carry, Settings, tuple[Array, Array]]) -> Carry:
            carry, of_all, batches = given

            def step(carry: Carry, now: tuple[Array, Array, Array]) -> tuple[Carry, None]:
                *batch, t = now
                settings = self.at(of_all, t)
                gradient, state = closed_form.gradients(
                    carry.parameters, settings.router, settings.coefficients, carry.router, *batch
                )
                if not self.gate.learns:
                    gradient["gate"] = jnp.zeros_like(gradient["gate"])
                return move(carry, settings.learning_rate, gradient, state, settings.updates), None

            return jax.lax.scan(step, carry, (*batches, times))[0]

        x, y = (jnp.moveaxis(v, (1, 3), (0, 2)) for v in (batches.x, batches.y))  # [seeds, steps, ..., tokens]
        return jax.lax.map(seed, (carry, settings, (x, y)))

    def advance_by_autodiff(
        self, carry: Carry, settings: Settings, batches: Batch, keys: Key[Array, " seeds"], first: Array
    ) -> Carry:
        """For any router, objective and expert: a scan over steps, all seeds and arms in every step."""
        over_arms = jax.vmap(self._update, in_axes=(0, 0, None, None))
        over_seeds = jax.vmap(over_arms)

        def step(carry: Carry, now: tuple[Batch, Array]) -> tuple[Carry, None]:
            batch, t = now
            noise = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 2), t))(keys)
            return over_seeds(carry, self.at(settings, t), batch, noise), None

        steps = first + jnp.arange(self.source.training.stride, dtype=jnp.int32)
        return jax.lax.scan(step, carry, (batches, steps))[0]

    def _forward(self, carry: Carry, settings: Settings, batch: Batch, key: PRNGKeyArray) -> Evaluation:
        output, _ = self.layer.apply(
            carry.parameters,
            settings.router,
            self.gate,
            carry.router,
            batch.x,
            batch.labels,
            key=key,
            training=False,
            topology=self.topology,
            limits=carry.limits,
            offset=carry.offset,
        )
        values = term_values(self.terms, output, self.topology.costs)
        scalars = {f"term_{name}": value for name, value in values.items()}
        scalars["test_loss"] = task_loss(self.source.data, output.prediction, batch.y)
        return Evaluation(output._replace(steps=()), scalars)

    @compiled(OWN_SUMS, QUICK)
    def forward(self, carry: Carry, settings: Settings, test: Batch, keys: Key[Array, " seeds"]) -> Evaluation:
        """Every seed and arm on the seed's test batch."""
        noise = jax.vmap(lambda key: jax.random.fold_in(key, 3))(keys)
        over_arms = jax.vmap(self._forward, in_axes=(0, 0, None, None))
        return jax.vmap(over_arms)(carry, settings, test, noise)

    def _experts(self, experts: Parameters) -> Parameters:
        """Of every seed and arm, one an expert."""
        if not self.topology.widths:
            return experts
        return jax.vmap(jax.vmap(lambda one: self.layer.routed(one, self.topology)))(experts)

    def evaluate(
        self, carry: Carry, settings: Settings, test: Batch, keys: Key[Array, " seeds"], done: int = 0
    ) -> Measured:
        """Measurements `[seeds, arms, ...]`, with the numbers that schedules give after so many steps."""
        settings = self.at(settings, done)
        output, scalars = self.forward(carry, settings, test, keys)
        least = jnp.float32(settings.router.least_routes)
        measured = measure(self.source.data, self._experts(carry.parameters["experts"]), output, test, least)
        found = jax.device_get(measured | scalars)
        if settings.router.selection.quotas(settings.router.partition) is None:
            found["redundancy"] = np.full_like(found["redundancy"], np.nan)  # its groups choose nothing
        return found

    def run(
        self,
        data: Data,
        layer: Layer,
        seeds: Sequence[int],
        settings: Settings,
        gate: Float[Array, "seeds arms experts dim"] | None = None,
    ) -> Iterator[tuple[Measured, Batch]]:
        """Measurements `[seeds, arms, ...]` of the untrained layer, then after every stride; and the test batches.

        `data` and `layer` may differ from the program's in what programs do not depend on; see `shared_program`.
        `gate`: to start with, in place of the layer's draw.
        """
        keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
        for carry, test, done in self.states(data, layer, seeds, settings, gate):
            yield self.evaluate(carry, settings, test, keys, done), test

    def proceed(
        self, carry: Carry, settings: Settings, batches: Batch, keys: Key[Array, " seeds"], first: Array
    ) -> Carry:
        """One stride, and the events at its end."""
        carry = self.advance(carry, settings, batches, keys, first)
        if not self.events:
            return carry
        last = jax.tree.map(lambda leaf: leaf[-1], batches)
        return happen(self.events, carry, last, int(first) + self.source.training.stride)

    def states(
        self,
        data: Data,
        layer: Layer,
        seeds: Sequence[int],
        settings: Settings,
        gate: Float[Array, "seeds arms experts dim"] | None = None,
    ) -> Iterator[tuple[Carry, Batch, int]]:
        """As `run`, but all that training goes on with, the test batches, and the steps done."""
        check_events(self.events, self.source.training.stride)
        keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
        truths = dataclasses.replace(self.source, data=data).truths(seeds)
        arms = settings.learning_rate.shape[1]
        test, carry = self.source.test(truths, keys), self.begin_with([[layer] * arms] * len(seeds), seeds, settings)
        if gate is not None:
            carry = eqx.tree_at(lambda one: one.parameters["gate"], carry, gate)
        carry = happen(self.events, carry, None, 0)
        yield carry, test, 0
        for record in range(self.source.training.records):
            first = jnp.asarray(record * self.source.training.stride, jnp.int32)
            carry = self.proceed(carry, settings, self.source.block(truths, keys, first), keys, first)
            yield carry, test, (record + 1) * self.source.training.stride


def shared_program(settings: Sequence[Setting]) -> Program:
    """The program of settings that differ in numbers alone, none of which is in it: all of them compile once."""
    one = settings[0]
    expert = _plain(one.layer.expert, one.layer.expert.at_start)
    layer = dataclasses.replace(_plain(one.layer, one.layer.at_start), expert=expert)
    training = _plain(one.training, ("learning_rate",))
    terms = objectives_of([setting.arm for setting in settings])
    source = Source(_plain(one.data, one.data.in_truth), training, brought.key(one.data))
    of_arms = {hashed for setting in settings for hashed in brought.key(setting.arm)}
    hashes = (*sorted(of_arms), *brought.key(one.layer))
    acts = named(one.arm.schedules), one.arm.events
    return Program(source, layer, one.arm.gate, terms, hashes, one.arm.topology, *acts)


def _plain(configuration: Configuration, names: Sequence[str]) -> Configuration:
    """With these fields as the class has them."""
    if not names:  # what a user brings need not be a dataclass
        return configuration
    defaults = {field.name: field.default for field in dataclasses.fields(configuration)}  # pyright: ignore
    return dataclasses.replace(configuration, **{name: defaults[name] for name in names})  # pyright: ignore
