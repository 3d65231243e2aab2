"""The shape of the network, and its named sizes."""

from pydantic import BaseModel, ConfigDict

from ofvl_core.network.sharing import Sharing


class Architecture(BaseModel):
    """Shape of the network. The defaults are the paper's; `input_height` is that of the resized image.

    `name` is for people. `attention` False leaves the task-specific attention out (EXP1 of the paper's
    Table 7).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "custom"
    depths: tuple[int, int, int, int]
    kernels: tuple[int, ...] = (3, 3)
    stem_width: int = 16
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    strides: tuple[int, int, int, int] = (1, 1, 2, 2)
    head_widths: tuple[int, ...] = (512, 256, 128)
    branch_width: int = 64
    input_height: int = 480
    sharing: Sharing = "conv_scored"
    attention: bool = True

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
            depths=(1, 1, 1, 1),
            widths=(16, 32, 64, 128),
            strides=(1, 2, 2, 1),
            head_widths=(128,),
            input_height=120,
        ),
    )
}
"""The paper's three sizes and one that trains and runs on a CPU."""
