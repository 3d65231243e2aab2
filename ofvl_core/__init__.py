"""OFVL-MS: one network that localizes a camera in many scenes. Imports no ROS."""

__version__ = "0.1.0"
