"""MuJoCo's MJX, imported without what it prints about an absent Warp."""

import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()):
    from mujoco import mjx

__all__ = ["mjx"]
