"""The localizer node with a slow model: the first argument says how often its network runs for an image."""

import sys
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from ofvl_core.network.ofvl_ms import OFVLMS
from ofvl_ros import localizer_node


def main() -> int:
    """Run the node as a process; return its exit code."""
    times = int(sys.argv[1])

    def repeat(module: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
        if isinstance(module, OFVLMS):
            for _ in range(times - 1):
                module.forward(*inputs)

    register_module_forward_hook(repeat)
    return localizer_node.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
