"""JAX as a competitor: the equations of torch's GRU in `lax.scan`, the product with the input taken out of the loop."""

from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.problem import WEIGHTS, Problem
from benchmarks.rounds import Competitor, Results

__all__ = ["jax_forward", "jax_training"]


def _scan(jax: Any, weights: Any, x: Any, h_0: Any) -> Any:
    """All states. The matrices of the weights lie the way a product with rows from the left likes them."""
    products = x @ weights["weight_ih"] + weights["bias_ih"]

    def step(h: Any, product: Any) -> Any:
        reset_in, update_in, candidate_in = jax.numpy.split(product, 3, axis=-1)
        past = h @ weights["weight_hh"] + weights["bias_hh"]
        reset_past, update_past, candidate_past = jax.numpy.split(past, 3, axis=-1)
        reset, z = jax.nn.sigmoid(reset_in + reset_past), jax.nn.sigmoid(update_in + update_past)
        candidate = jax.numpy.tanh(candidate_in + reset * candidate_past)
        h = (1 - z) * candidate + z * h
        return h, h

    return jax.lax.scan(step, h_0, products)[1]


def _arguments(jax: Any, problem: Problem) -> tuple[Any, Any, Any]:
    weights = {name: jax.numpy.asarray(np.ascontiguousarray(problem.weights[name].T)) for name in WEIGHTS}
    h_0 = jax.numpy.zeros((problem.shape.batch, problem.shape.units), jax.numpy.float32)
    return weights, jax.numpy.asarray(problem.x), h_0


def jax_forward(problem: Problem, _threads: int) -> Competitor:
    """The scan, compiled."""
    jax: Any = import_module("jax")
    weights, x, h_0 = _arguments(jax, problem)
    compiled = jax.jit(lambda weights, x: _scan(jax, weights, x, h_0))
    return Competitor(
        "JAX",
        lambda: jax.block_until_ready(compiled(weights, x)),
        lambda output: {"output": np.asarray(output)},
    )


def jax_training(problem: Problem, _threads: int) -> Competitor:
    """The scan and its gradients, compiled as one."""
    jax: Any = import_module("jax")
    weights, x, h_0 = _arguments(jax, problem)
    g = jax.numpy.asarray(problem.g)

    def loss(weights: Any, x: Any, g: Any) -> Any:
        output = _scan(jax, weights, x, h_0)
        return (output * g).sum(), output

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def results(given: Any) -> Results:
        (_, output), gradients = given
        return {"output": np.asarray(output), **{name: np.asarray(one).T for name, one in gradients.items()}}

    return Competitor("JAX", lambda: jax.block_until_ready(compiled(weights, x, g)), results)
