"""Procedural rooms, seen by the sensors of a wheeled robot, written in the 7-Scenes layout or as bags."""

from ofvl_core.simulation.livl import simulate_livl
from ofvl_core.simulation.simulate import simulate

__all__ = ["simulate", "simulate_livl"]
