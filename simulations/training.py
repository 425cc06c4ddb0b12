"""Training: many seeds and settings of one structure at once, as one compiled scan over steps.

Arms of equal structure (same selection, score and kind of controller) differ only in numbers, so they run as one batch.
Data and initial parameters of a seed are the same for every arm: arms are compared on equal draws. In sweeps a seed may
stand here once for each of several data sets that differ in numbers alone; each has its own truth, batches and arms.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PRNGKeyArray

from himoe_theory import Router
from himoe_theory.controllers import Tree
from himoe_theory.objectives import Objective

from . import brought, closed_form
from .arms import Arm
from .compiling import OWN_SUMS, QUICK, WIDE, compiled
from .data import Batch, Data
from .gates import Gate
from .layer import Layer, Output, Parameters
from .losses import task_loss, term_values
from .record import measure
from .source import OPTIMIZERS, Source, Training
from .topology import PLAIN, Topology

Configuration = TypeVar("Configuration")


@dataclasses.dataclass(frozen=True)
class Setting:
    """All that determines a run, but its seed."""

    arm: Arm
    data: Data
    layer: Layer
    training: Training


class Settings(eqx.Module):
    """The numbers in which runs of one structure differ; every leaf has leading axes `[seeds, arms]`."""

    router: Router
    coefficients: dict[str, Float[Array, "*seeds_arms"]]
    learning_rate: Float[Array, "*seeds_arms"]


def stack(rows: Sequence[Sequence[tuple[Arm, float]]], terms: Sequence[Objective]) -> Settings:
    """The numbers of arms of one structure, each with its learning rate; a term that an arm lacks has coefficient 0.

    **Arguments:** `rows`: for every seed its arms, equally many.
    """

    def table(of: Callable[[Arm, float], float]) -> Float[Array, "seeds arms"]:
        return jnp.asarray([[of(*one) for one in row] for row in rows], jnp.float32)

    routers = [[dataclasses.replace(arm.router, name="batch", source="batch") for arm, _ in row] for row in rows]
    by_seed = [jax.tree.map(lambda *numbers: np.asarray(numbers, np.float32), *row) for row in routers]
    return Settings(
        jax.tree.map(lambda *one: jnp.asarray(np.stack(one)), *by_seed),
        {term.name: table(lambda arm, _, name=term.name: arm.terms.get(name, 0.0)) for term in terms},
        table(lambda _, rate: rate),
    )


@dataclasses.dataclass(frozen=True)
class Group:
    """Arms that run as one program."""

    arms: tuple[Arm, ...]
    gate: Gate
    terms: tuple[Objective, ...]
    topology: Topology = PLAIN

    def settings(self, training: Training, seeds: int) -> Settings:
        """The arms' numbers, the same for every seed."""
        return stack([[(arm, training.learning_rate) for arm in self.arms]] * seeds, self.terms)


def group(arms: Sequence[Arm]) -> list[Group]:
    """Arms by structure, in order of first appearance. Arms that mean different objectives by one name are apart."""
    found: dict[Any, list[tuple[list[Arm], dict[str, Objective]]]] = {}
    for arm in arms:
        bare = dataclasses.replace(arm.router, name="batch", source="batch")
        alike = found.setdefault((arm.gate, arm.topology, jax.tree.structure(bare)), [])
        for members, meant in alike:
            if all(meant.get(name, objective) == objective for name, objective in arm.objectives.items()):
                members.append(arm)
                meant.update(arm.objectives)
                break
        else:
            alike.append(([arm], dict(arm.objectives)))
    return [
        Group(tuple(members), gate, tuple(meant[name] for name in sorted(meant)), topology)
        for (gate, topology, _), alike in found.items()
        for members, meant in alike
    ]


def objectives_of(arms: Sequence[Arm]) -> tuple[Objective, ...]:
    """Objectives of any of the arms, by name."""
    found = {name: objective for arm in arms for name, objective in arm.objectives.items()}
    return tuple(found[name] for name in sorted(found))


class Carry(eqx.Module):
    """All that the next step needs."""

    parameters: Parameters
    optimizer: Any
    router: Tree


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
        return Carry(parameters, moments, states)

    def _optimizer(self, learning_rate: Float[Array, ""]) -> optax.GradientTransformation:
        return OPTIMIZERS[self.source.training.optimizer](learning_rate)

    def _loss(
        self, parameters: Parameters, settings: Settings, state: Tree, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Array, Tree]:
        output, state = self.layer.apply(
            parameters,
            settings.router,
            self.gate,
            state,
            batch.x,
            batch.labels,
            key=key,
            training=True,
            topology=self.topology,
        )
        loss = task_loss(self.source.data, output.prediction, batch.y)
        for name, value in term_values(self.terms, output, self.topology.costs).items():
            loss = loss + settings.coefficients[name] * value
        return loss, state

    def _move(self, carry: Carry, learning_rate: Float[Array, ""], gradient: Parameters, state: Tree) -> Carry:
        with jax.numpy_dtype_promotion("standard"):  # optax raises numbers to its integer step count
            optimizer = self._optimizer(learning_rate)
            updates, optimizer = optimizer.update(gradient, carry.optimizer, carry.parameters)
        return Carry(optax.apply_updates(carry.parameters, updates), optimizer, state)

    def _update(self, carry: Carry, settings: Settings, batch: Batch, key: PRNGKeyArray) -> Carry:
        gradient, state = jax.grad(self._loss, has_aux=True)(carry.parameters, settings, carry.router, batch, key)
        return self._move(carry, settings.learning_rate, gradient, state)

    @compiled(OWN_SUMS, QUICK, WIDE)
    def advance(
        self, carry: Carry, settings: Settings, batches: Batch, keys: Key[Array, " seeds"], first: Array
    ) -> Carry:
        """One stride: the steps of `batches` in turn, for all seeds and arms; in closed form where there is one."""
        if self._in_closed_form(settings.router):
            return self.advance_in_closed_form(carry, settings, batches)
        return self.advance_by_autodiff(carry, settings, batches, keys, first)

    def _in_closed_form(self, router: Router) -> bool:
        plain = self.topology == PLAIN
        return plain and closed_form.applies(self.layer, router, self.gate, self.terms, self.source.data.task)

    def advance_in_closed_form(self, carry: Carry, settings: Settings, batches: Batch) -> Carry:
        """Seed by seed, so that one seed's arrays stay in a processor's cache; nothing is random but the batches."""
        move = jax.vmap(self._move)

        def seed(given: tuple[Carry, Settings, tuple[Array, Array]]) -> Carry:
            carry, settings, batches = given

            def step(carry: Carry, now: tuple[Array, Array]) -> tuple[Carry, None]:
                gradient, state = closed_form.gradients(
                    carry.parameters, settings.router, settings.coefficients, carry.router, *now
                )
                if not self.gate.learns:
                    gradient["gate"] = jnp.zeros_like(gradient["gate"])
                return move(carry, settings.learning_rate, gradient, state), None

            return jax.lax.scan(step, carry, batches)[0]

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
            return over_seeds(carry, settings, batch, noise), None

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

    def evaluate(self, carry: Carry, settings: Settings, test: Batch, keys: Key[Array, " seeds"]) -> Measured:
        """Measurements `[seeds, arms, ...]`."""
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
        truths = dataclasses.replace(self.source, data=data).truths(seeds)
        arms = settings.learning_rate.shape[1]
        test, carry = self.source.test(truths, keys), self.begin_with([[layer] * arms] * len(seeds), seeds, settings)
        if gate is not None:
            carry = eqx.tree_at(lambda one: one.parameters["gate"], carry, gate)
        yield self.evaluate(carry, settings, test, keys), test
        for record in range(self.source.training.records):
            first = jnp.asarray(record * self.source.training.stride, jnp.int32)
            carry = self.advance(carry, settings, self.source.block(truths, keys, first), keys, first)
            yield self.evaluate(carry, settings, test, keys), test


def shared_program(settings: Sequence[Setting]) -> Program:
    """The program of settings that differ in numbers alone, none of which is in it: all of them compile once."""
    one = settings[0]
    expert = _plain(one.layer.expert, one.layer.expert.at_start)
    layer = dataclasses.replace(_plain(one.layer, one.layer.at_start), expert=expert)
    training = _plain(one.training, ("learning_rate",))
    terms = objectives_of([setting.arm for setting in settings])
    source = Source(_plain(one.data, one.data.in_truth), training, brought.key(one.data))
    of_arms = {hashed for setting in settings for hashed in brought.key(setting.arm)}
    return Program(source, layer, one.arm.gate, terms, (*sorted(of_arms), *brought.key(one.layer)), one.arm.topology)


def _plain(configuration: Configuration, names: Sequence[str]) -> Configuration:
    """With these fields as the class has them."""
    if not names:  # what a user brings need not be a dataclass
        return configuration
    defaults = {field.name: field.default for field in dataclasses.fields(configuration)}  # pyright: ignore
    return dataclasses.replace(configuration, **{name: defaults[name] for name in names})  # pyright: ignore
