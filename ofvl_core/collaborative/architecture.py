"""The shape of the three networks, and its named sizes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

STRIDE = 32
"""Sides of the networks' input are multiples of it: so coarse is an encoder's last feature."""

NARROWEST = 16
"""Torch 2.13 cannot train narrower shortcuts on a CPU: the backward pass of a strided 1x1 convolution with
fewer input channels, in channels_last, writes past the end of its memory."""

Blocks = tuple[
    Annotated[int, Field(gt=0)],
    Annotated[int, Field(gt=0)],
    Annotated[int, Field(gt=0)],
    Annotated[int, Field(gt=0)],
]
"""Residual blocks in each of an encoder's four stages."""


class Architecture(BaseModel):
    """Shape of the networks. The defaults are the paper's: ResNet18 for depth and motion, ResNet34 for pose.

    `name` is for people. `width` is that of the encoders' first stage; each further one is twice as wide.
    Without `guidance` the three networks know nothing of one another, without `relocalization` there is none
    of global poses: with both False what is left is the paper's baseline of depth and odometry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "custom"
    width: Annotated[int, Field(ge=NARROWEST, multiple_of=4)] = 64
    depth_blocks: Blocks = (2, 2, 2, 2)
    local_blocks: Blocks = (2, 2, 2, 2)
    global_blocks: Blocks = (3, 4, 6, 3)
    guidance: bool = True
    relocalization: bool = True


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(name="collab18"),
        Architecture(
            name="collab_lite",
            width=16,
            depth_blocks=(1, 1, 1, 1),
            local_blocks=(1, 1, 1, 1),
            global_blocks=(1, 1, 1, 1),
        ),
    )
}
"""The paper's networks and ones that train and run on a CPU."""
