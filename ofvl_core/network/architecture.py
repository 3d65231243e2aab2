"""The shape of the network, and its named sizes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ofvl_core.network.sharing import Sharing

Size = Annotated[int, Field(gt=0)]


class Architecture(BaseModel):
    """Shape of the network. The defaults are the paper's; `input_height` is that of the resized image.

    `name` is for people. `looks` is how often the network looks at an image (`ofvl_core.looks`). `attention`
    False leaves the task-specific attention out (EXP1 of the paper's Table 7).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "custom"
    depths: tuple[Size, Size, Size, Size]
    kernels: tuple[Size, ...] = (3, 3)
    stem_width: Size = 16
    widths: tuple[Size, Size, Size, Size] = (64, 128, 256, 512)
    strides: tuple[Size, Size, Size, Size] = (1, 1, 2, 2)
    head_widths: Annotated[tuple[Size, ...], Field(min_length=1)] = (512, 256, 128)
    branch_width: Size = 64
    head_kernel: Literal[1, 3] = 3
    input_height: Size = 480
    looks: Annotated[int, Field(ge=1, le=5)] = 1
    sharing: Sharing = "conv_scored"
    attention: bool = True

    @field_validator("kernels")
    @classmethod
    def _one_may_stride(cls, kernels: tuple[int, ...]) -> tuple[int, ...]:
        if 3 not in kernels or any(kernel % 2 == 0 for kernel in kernels):
            raise ValueError("kernels must be odd, and one of them 3, which takes the stride")
        return kernels

    @property
    def stride(self) -> int:
        """Pixels of the network's input a cell."""
        total = 2
        for stride in self.strides:
            total *= stride
        return total


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(name="ofvl_ms18", depths=(2, 2, 2, 2)),
        Architecture(name="ofvl_ms34", depths=(3, 4, 6, 3)),
        Architecture(name="ofvl_ms50", depths=(3, 4, 6, 3), kernels=(1, 3, 1)),
        Architecture(
            name="ofvl_ms_lite",
            depths=(1, 1, 2, 1),
            widths=(16, 32, 64, 128),
            strides=(1, 2, 2, 1),
            head_widths=(256, 256),
            branch_width=128,
            head_kernel=1,
            input_height=120,
        ),
    )
}
"""The paper's three sizes and one that trains and runs on a CPU."""
