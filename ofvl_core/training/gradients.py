"""Gradient normalisation (paper Sec. 3.3, Eq. 6-9): every scene pulls the shared parameters equally hard."""

from collections.abc import Sequence

import torch
from torch import Tensor

Gradients = list[Tensor]
"""One scene's gradient: a tensor for every shared parameter, in a fixed order."""


class GradientNormalisation:
    """Combines the scenes' gradients of shared parameters; knows nothing of the network.

    `previous_norms` is the state that Eq. 7 needs: the norms of the last call, one a scene, or empty.
    Choices where the paper is silent: one norm over all shared parameters; in the first call every scene
    has the same relative convergence; a scene whose gradient vanishes contributes nothing.
    """

    def __init__(self, previous_norms: Sequence[float] = ()):
        self.previous_norms = list(previous_norms)

    def __call__(self, gradients: Sequence[Gradients]) -> Gradients:
        """The combined gradient (Eq. 9) of the scenes' `gradients`, which are scaled in place."""
        norms = torch.stack([torch.stack(torch._foreach_norm(scene)).norm() for scene in gradients]).double()
        values = norms.tolist()
        before = self.previous_norms or values
        pace = [now / then if then > 0 else 0.0 for now, then in zip(values, before, strict=True)]
        total_pace = sum(pace)
        if total_pace > 0:
            common_scale = sum(
                rate / total_pace * norm for rate, norm in zip(pace, values, strict=True)
            )  # Eq. 6, 7
            for scene, norm in zip(gradients, values, strict=True):
                torch._foreach_mul_(
                    scene, common_scale / norm / len(gradients) if norm > 0 else 0.0
                )  # Eq. 8, 9
        self.previous_norms = values
        combined, *others = gradients
        for scene in others:
            torch._foreach_add_(combined, scene)
        return combined
