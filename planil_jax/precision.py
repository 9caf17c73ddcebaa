"""The library computes in float32, whatever JAX is set to."""

import jax


def require_float32() -> str:
    """Switches 64-bit numbers of JAX off.

    Returns:
      A sentence about it; "" where they were off.
    """
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        return ""
    jax.config.update("jax_enable_x64", False)
    return "planil_jax computes in float32: JAX_ENABLE_X64 is switched off."
