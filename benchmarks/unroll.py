"""Gradients of MAIL's policy by horizon: through true physics, and through a model.

    python -m benchmarks.unroll --env=pendulum --horizons=1,2,5,10,25,50,100 \\
        --out=results/benchmarks/unroll_pendulum.json --picture=unroll.png

The objective Σ_{t<H} γ^t cost is differentiated from single starts, for untrained policies
and discriminators: through the environment's physics, and through a forward model fitted to
random steps. There is a row for each of the two and each horizon:

    median, 95%, largest    norms of the gradient over starts and seeds
    finite                  share of the norms that are finite

--picture draws them.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import timing
from planil_jax import envs
from planil_jax.agents import mail
from planil_jax.base import Environment, Task
from planil_jax.cli import app
from planil_jax.evaluation import expert_policies
from planil_jax.models import ensemble, simulator
from planil_jax.reporting import figures
from planil_jax.training import loop

FLAGS = flags.FLAGS

COLUMNS = "through     H     median        95%    largest  finite"
_STEPS = 64  # steps of each of as many environments, to which the model is fitted


def define_flags() -> None:
    """Not on import: other benchmarks have flags of the same names."""
    flags.DEFINE_string(
        "env", "pendulum", "An environment whose observation is its full state."
    )
    flags.DEFINE_list("horizons", ["1", "2", "5", "10", "25", "50", "100"], "H, steps.")
    flags.DEFINE_integer("starts", 32, "Starts of each seed.", lower_bound=1)
    flags.DEFINE_integer("seeds", 4, "Policies and discriminators.", lower_bound=1)
    flags.DEFINE_integer("model_steps", 2000, "Gradient steps of the model.", lower_bound=1)
    flags.DEFINE_string("out", None, "File of results to write, .json.")
    flags.DEFINE_string("picture", None, "Picture of the results to draw, .png.")


def main() -> None:
    horizons = timing.positive_integers("horizons", FLAGS.horizons)
    timing.writable(FLAGS.out)
    timing.writable(FLAGS.picture)
    env = envs.make(FLAGS.env)
    print(COLUMNS)
    rows = measure(env, horizons, FLAGS.starts, FLAGS.seeds, FLAGS.model_steps)
    configuration = {name: FLAGS[name].value for name in ("env", "model_steps")}
    configuration |= {"starts": FLAGS.starts, "seeds": FLAGS.seeds}
    measured = timing.Measured(
        work="the gradient of MAIL's policy from one start, through physics or a model",
        configuration=configuration,
    )
    timing.write(FLAGS.out, "unroll", rows, measured)
    if FLAGS.picture:
        figures.gradient_norms(rows).savefig(FLAGS.picture, dpi=110)
        print(f"wrote {FLAGS.picture}")


def measure(
    env: Environment, horizons: tuple[int, ...], starts: int, seeds: int, model_steps: int
) -> list[dict[str, Any]]:
    """Rows through physics and through the model.

    Raises:
      UsageError: the physics cannot be differentiated, or cannot start from observations.
    """
    mail.make(task_of(env), config_of("physics", 1))  # may refuse
    timing.say("fitting a model …")
    fitted, obs = jax.jit(lambda key: fit(env, model_steps, key))(jax.random.key(0))
    rows = []
    for dynamics in ("physics", "model"):
        for horizon in horizons:
            config = config_of(dynamics, horizon)
            norms = np.asarray(gradient_norms(env, config, fitted, obs[:starts], seeds))
            finite = norms[np.isfinite(norms)]
            row = {
                "through": dynamics,
                "horizon": horizon,
                "median": float(np.median(finite)),
                "high": float(np.percentile(finite, 95)),
                "largest": float(finite.max()),
                "finite": finite.size / norms.size,
                "repeats": norms.size,
            }
            print(line(row), flush=True)
            rows.append(row)
    return rows


def task_of(env: Environment) -> Task:
    return Task.of(env.spec, dynamics=simulator.prior_or_physics(env), num_envs=_STEPS)


def config_of(dynamics: Literal["model", "physics"], horizon: int) -> mail.Config:
    """One start at a time."""
    imagination = mail.ImaginationConfig(dynamics=dynamics, batch=1)
    return mail.Config(imagination=imagination, horizon=horizon)


def gradient_norms(
    env: Environment, config: mail.Config, fitted: mail.State, obs: jax.Array, seeds: int
) -> jax.Array:
    """Norms `[seeds, B]` of the policy's gradient from single starts obs `[B, O]`."""
    components = mail.make_components(task_of(env), config)
    unread = jnp.zeros((config.horizon, 1, env.spec.action_size))

    def of_seed(key: jax.Array) -> jax.Array:
        policy_key, discriminator_key, key = jax.random.split(key, 3)
        policy = components.policy.init(policy_key)
        discriminator = components.discriminator.init(discriminator_key)
        frozen = mail.Frozen(discriminator, mail.model_params(fitted))

        def of_start(start: jax.Array, key: jax.Array) -> jax.Array:
            shape = (config.horizon + 1, 1, start.size)
            batch = mail.Steps(jnp.broadcast_to(start, shape), unread)
            loss = functools.partial(mail.policy_loss, components)
            gradient, _ = jax.grad(loss, has_aux=True)(policy, frozen, batch, key)
            leaves = jax.tree.leaves(gradient)
            return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))

        return jax.vmap(of_start)(obs, jax.random.split(key, len(obs)))

    return jax.jit(jax.vmap(of_seed))(jax.random.split(jax.random.key(1), seeds))


def fit(env: Environment, steps: int, key: jax.Array) -> tuple[mail.State, jax.Array]:
    """A state whose model was fitted to random steps, and their observations `[B, O]`."""
    config, task = mail.Config(capacity=_STEPS), task_of(env)
    components = mail.make_components(task, config)
    state = mail.make(task, config).init(key)
    rollout_key, fit_key = jax.random.split(key)
    agent, loop_config = (
        expert_policies.make_random(env),
        loop.Config(num_envs=_STEPS, steps=_STEPS),
    )
    start = loop.init(agent, env, loop_config, key)
    rollout = loop.collect(
        agent, env, loop_config, (), start.env, start.carry, rollout_key
    )[2]
    obs, next_obs, actions = (
        leaf.reshape(-1, leaf.shape[-1])
        for leaf in (rollout.obs, rollout.next_obs, rollout.action)
    )
    model = ensemble.update_normalizer(mail.model_params(state), obs, next_obs)
    params = dataclasses.replace(state.params, moments=model.obs)
    state = dataclasses.replace(state, params=params, change=model.change)

    def step(state: mail.State, key: jax.Array):
        rows = jax.random.randint(key, (config.batch,), 0, len(obs))
        batch = mail.Steps(jnp.stack([obs[rows], next_obs[rows]]), actions[rows][None])
        return mail.fit_model(components, state, batch)[0], None

    return jax.lax.scan(step, state, jax.random.split(fit_key, steps))[0], obs


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['through']:8} {row['horizon']:4} {row['median']:10.3g} {row['high']:10.3g} "
        f"{row['largest']:10.3g} {row['finite']:7.0%}"
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
