"""Compiling for models so small that they run in less time than LLVM takes to optimize them."""

from functools import partial

import jax

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
