"""Procedural rooms, seen by the sensors of a wheeled robot, written in the 7-Scenes layout."""

from ofvl_core.simulation.simulate import simulate

__all__ = ["simulate"]
