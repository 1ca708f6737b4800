"""Recover the reward a language model was aligned with, and say how far that can be trusted."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irl_exp.api import load_reward, recover, run

__all__ = ["load_reward", "recover", "run"]


def __getattr__(name: str) -> Any:
    """The names above when they are asked for: to import the package costs nothing."""
    if name in __all__:
        from irl_exp import api

        return getattr(api, name)
    raise AttributeError(f"module 'irl_exp' has no attribute '{name}'")
