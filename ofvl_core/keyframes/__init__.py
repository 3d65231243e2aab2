"""What a scene looked like from some of its training frames, by which a network's poses are refined.

A network remembers a scene in a few hundred thousand numbers, and is right to a few centimetres where it
was trained and to decimetres between. A keyframe is remembered as it is: a small grey image, its depth and
corners. Warped by a pose that is nearly right, the robot's image shows a keyframe almost as it is kept; where
its corners have moved to tells how the pose is wrong. Where it is not nearly right, features are matched.
"""

from ofvl_core.keyframes.ahead import Ahead
from ofvl_core.keyframes.album import Album
from ofvl_core.keyframes.focal import focal_words
from ofvl_core.keyframes.refinement import Refinement, Search, refine
from ofvl_core.keyframes.selection import remember

__all__ = ["Ahead", "Album", "Refinement", "Search", "focal_words", "refine", "remember"]
