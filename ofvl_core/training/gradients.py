"""How the scenes' gradients of shared parameters become one: gradient normalisation (paper Sec. 3.3,
Eq. 6-9), so that every scene pulls equally hard, and what a user can choose instead.

Nothing here knows of the network. Every method is a weighted sum of the scenes' gradients whose weights
follow from their Gramian, the inner products (N, N) of N gradients; its diagonal holds the squared norms.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Gradients = list[Tensor]
"""One scene's gradient: a tensor for every shared parameter, in a fixed order."""

Method = Literal["normalised", "average", "imtl_g", "mgda", "aligned_mtl"]
METHODS: tuple[Method, ...] = get_args(Method)


class Combination(ABC):
    """Turns the scenes' gradients into one. `state` is what the next call needs of this one."""

    uses_inner_products = False
    """Whether the weights depend on more of the Gramian than its diagonal."""

    def __init__(self, state: Sequence[float] = ()):
        self.state = list(state)

    @abstractmethod
    def weights(self, gramian: Tensor) -> Tensor:
        """Weights (N,) of the scenes' gradients in the combined one, both float64."""

    def __call__(self, gradients: Sequence[Gradients]) -> Gradients:
        """The combined gradient of the scenes' `gradients`, which are changed in place."""
        weights = self.weights(gramian(gradients, self.uses_inner_products))
        return weighted_sum(gradients, weights.tolist())


class GradientNormalisation(Combination):
    """Eq. 6-9. `state` holds the norms of the last call, one a scene, or nothing before the first.

    Choices where the paper is silent: one norm over all shared parameters; a scene without a previous norm,
    or with one of zero, goes at a pace of 1; a scene whose gradient vanishes contributes nothing.
    """

    def weights(self, gramian: Tensor) -> Tensor:
        norms = gramian.diagonal().sqrt()
        before = torch.tensor(self.state, dtype=norms.dtype) if self.state else norms
        self.state = norms.tolist()
        pace = torch.where(before > 0, norms / before, (norms > 0).to(norms.dtype))
        if pace.sum() == 0:
            return torch.zeros_like(norms)
        relative_convergence = pace / pace.sum()  # Eq. 7
        common_scale = (relative_convergence * norms).sum()  # Eq. 6
        return torch.where(norms > 0, common_scale / norms, 0.0) / len(norms)  # Eq. 8, 9


class Average(Combination):
    """The plain mean, which Sec. 3.3 starts from: the scene with the largest gradient has its way."""

    def weights(self, gramian: Tensor) -> Tensor:
        return torch.full_like(gramian.diagonal(), 1 / len(gramian))


class FromTorchJD(Combination):
    """A weighting of the TorchJD library, which keep no state from call to call."""

    uses_inner_products = True

    def __init__(self, weighting: Any):
        super().__init__()
        self._weighting = weighting

    def weights(self, gramian: Tensor) -> Tensor:
        return self._weighting(gramian)


def make_combination(method: Method, state: Sequence[float] = ()) -> Combination:
    """The combination of that name, continuing from `state`.

    "normalised" is the paper's; "average" the plain mean; "imtl_g" (Liu et al., Towards impartial
    multi-task learning, ICLR 2021), "mgda" (Sener and Koltun, NeurIPS 2018) and "aligned_mtl" (Senushkin
    et al., CVPR 2023) are TorchJD's.
    """
    if method == "normalised":
        return GradientNormalisation(state)
    if method == "average":
        return Average(state)
    from torchjd import aggregation  # takes a second to import

    weightings = {
        "imtl_g": aggregation.IMTLGWeighting,
        "mgda": aggregation.MGDAWeighting,
        "aligned_mtl": aggregation.AlignedMTLWeighting,
    }
    return FromTorchJD(weightings[method]())


def gramian(gradients: Sequence[Gradients], inner_products: bool = True) -> Tensor:
    """Inner products (N, N), float64 on the CPU, of N gradients; only the diagonal unless asked for all."""
    if not inner_products:
        norms = torch.stack([torch.stack(torch._foreach_norm(scene)).norm() for scene in gradients])
        return norms.double().square().diag().cpu()
    count = len(gradients)
    total = torch.zeros(count, count, dtype=torch.float64, device=gradients[0][0].device)
    for of_one_parameter in zip(*gradients, strict=True):
        rows = torch.stack([gradient.flatten() for gradient in of_one_parameter])
        total += (rows @ rows.T).double()
    return total.cpu()


def weighted_sum(gradients: Sequence[Gradients], weights: Sequence[float]) -> Gradients:
    """Sum of the gradients times their weights; computed in the tensors of the first."""
    combined, *others = gradients
    torch._foreach_mul_(combined, weights[0])
    for scene, weight in zip(others, weights[1:], strict=True):
        torch._foreach_add_(combined, scene, alpha=weight)
    return combined
