"""Gradients of MAIL's policy by horizon: through true physics, and through a model.

    python -m benchmarks.unroll --env=pendulum --horizons=1,2,5,10,25,50,100 \\
        --out=results/unroll_pendulum.json

The objective Σ_{t<H} γ^t cost is differentiated from single starts, for untrained policies
and discriminators, through the environment's own physics and through a forward model that
was fitted to random steps of it. One row a way and horizon:

    median, 95%, largest    norms of the gradient over starts and seeds
    finite                  share of them that are

A picture of the same name is drawn beside the file of results.
"""

import dataclasses
import pathlib
from typing import Any

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
_STEPS = 64  # of each of as many environments, that the model is fitted to


def define_flags() -> None:
    """Not on import: other benchmarks have flags of the same names."""
    flags.DEFINE_string("env", "pendulum", "An environment that observations tell all of.")
    flags.DEFINE_list("horizons", ["1", "2", "5", "10", "25", "50", "100"], "H, steps.")
    flags.DEFINE_integer("starts", 32, "Starts of each seed.", lower_bound=1)
    flags.DEFINE_integer("seeds", 4, "Policies and discriminators.", lower_bound=1)
    flags.DEFINE_integer("fits", 2000, "Gradient steps of the model.", lower_bound=1)
    flags.DEFINE_string("out", None, "File of results to write, .json.")


def main() -> None:
    horizons = timing.positive_integers("horizons", FLAGS.horizons)
    timing.writable(FLAGS.out)
    env = envs.make(FLAGS.env)
    print(COLUMNS)
    rows = measure(env, horizons, FLAGS.starts, FLAGS.seeds, FLAGS.fits)
    about = timing.about("unroll") | {"environment": FLAGS.env}
    timing.write(FLAGS.out, {"about": about, "rows": rows})
    if FLAGS.out:
        picture = pathlib.Path(FLAGS.out).with_suffix(".png")
        figures.gradient_norms(rows).savefig(picture, dpi=110)
        print(f"wrote {picture}")


def measure(
    env: Environment, horizons: tuple[int, ...], starts: int, seeds: int, fits: int
) -> list[dict[str, Any]]:
    """Rows of both ways.

    Raises:
      UsageError: the physics cannot be differentiated, or cannot start from observations.
    """
    through_physics = mail.Config(roll="physics")
    mail.make(
        Task.of(env.spec, dynamics=simulator.prior_or_physics(env)), through_physics
    )  # may refuse
    timing.say("fitting a model …")
    fitted, obs = jax.jit(lambda key: fit(env, fits, key))(jax.random.key(0))
    rows = []
    for way in ("physics", "model"):
        for horizon in horizons:
            norms = np.asarray(
                gradient_norms(env, way, horizon, fitted, obs[:starts], seeds)
            )
            finite = norms[np.isfinite(norms)]
            row = {
                "through": way,
                "horizon": horizon,
                "median": float(np.median(finite)),
                "high": float(np.percentile(finite, 95)),
                "largest": float(finite.max()),
                "finite": finite.size / norms.size,
            }
            print(line(row), flush=True)
            rows.append(row)
    return rows


def gradient_norms(
    env: Environment, way: str, horizon: int, fitted: mail.State, obs: jax.Array, seeds: int
) -> jax.Array:
    """`[seeds, B]`, from single starts obs `[B, O]`."""
    config = dataclasses.replace(mail.Config(), roll=way, horizon=horizon, policy_batch=1)
    parts = mail.make_parts(env.spec, config, simulator.prior_or_physics(env))
    model = mail.model_of(fitted)
    records = jnp.zeros((horizon, 1, env.spec.action_size))

    def of_seed(key: jax.Array) -> jax.Array:
        policy_key, judge_key, key = jax.random.split(key, 3)
        policy, judge = parts.policy.init(policy_key), parts.judge.init(judge_key)

        def of_start(start: jax.Array, key: jax.Array) -> jax.Array:
            def loss(params):
                seen = jnp.broadcast_to(start, (horizon + 1, 1, start.size))
                return mail.policy_loss(
                    config, parts, params, judge, model, seen, records, key
                )[0]

            leaves = jax.tree.leaves(jax.grad(loss)(policy))
            return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))

        return jax.vmap(of_start)(obs, jax.random.split(key, len(obs)))

    return jax.jit(jax.vmap(of_seed))(jax.random.split(jax.random.key(1), seeds))


def fit(env: Environment, fits: int, key: jax.Array) -> tuple[mail.State, jax.Array]:
    """A state whose model was fitted to random steps, and their observations `[B, O]`."""
    config = mail.Config(capacity=_STEPS)
    agent = mail.make(Task.of(env.spec, num_envs=_STEPS), config)
    parts = mail.make_parts(env.spec, config)
    shape = loop.Config(num_envs=_STEPS, steps=_STEPS)
    state, rollout_key, fit_key = agent.init(key), *jax.random.split(key)
    begin = loop.init(expert_policies.make_random(env), env, shape, key)
    rollout = loop.collect(
        expert_policies.make_random(env),
        env,
        shape,
        (),
        begin.env,
        begin.carry,
        rollout_key,
    )[2]
    obs, next_obs, actions = (
        leaf.reshape(-1, leaf.shape[-1])
        for leaf in (rollout.obs, rollout.next_obs, rollout.action)
    )
    known = ensemble.update_normalizer(mail.model_of(state), obs, next_obs)
    acting = dataclasses.replace(state.params, moments=known.obs)
    state = dataclasses.replace(state, params=acting, change=known.change)

    def step(state: mail.State, key: jax.Array):
        rows = jax.random.randint(key, (config.batch,), 0, len(obs))
        pairs = jnp.stack([obs[rows], next_obs[rows]])
        return mail.fit_model(parts, state, pairs, actions[rows][None])[0], None

    return jax.lax.scan(step, state, jax.random.split(fit_key, fits))[0], obs


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['through']:8} {row['horizon']:4} {row['median']:10.3g} {row['high']:10.3g} "
        f"{row['largest']:10.3g} {row['finite']:7.0%}"
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
