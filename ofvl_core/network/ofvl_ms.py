"""OFVL-MS: the model of many scenes."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from ofvl_core.errors import ConfigError
from ofvl_core.network.architecture import Architecture
from ofvl_core.network.backbone import Backbone
from ofvl_core.network.head import SceneCoordinateHead
from ofvl_core.network.sharing import (
    LayerAdaptiveConv2d,
    SceneSpecific,
    ScoredLayer,
    scene_key,
    update_gates,
)

LOG_UNCERTAINTY_RANGE = (-7.0, 3.0)
"""Bounds of log u in Eq. 4, 1 mm to 20 m: outside, one cell could dominate the loss."""

SCENE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Prediction(NamedTuple):
    """Scene coordinates (B, 3, h, w) in metres and their uncertainty's logarithm (B, 1, h, w)."""

    coordinates: Tensor
    log_uncertainty: Tensor


class OFVLMS(nn.Module):
    """One backbone and a head for every scene.

    Images come as (B, 3, H, W), RGB in -1..1, H and W multiples of the architecture's stride; a batch
    belongs to one scene, because normalisation, attention and head do.

    `scored_layers` are the layers that the sharing policy decides on, by name, from input to output.
    `owners` names, for every scene that has no specific convolutions of its own, the scene whose it uses.

    With `compact_gates`, whether each scored layer is shared by name, the model is built as `compact` leaves
    it and the tensors that would be dropped are never made. Under `torch.device("meta")` that costs nothing
    but structure; `load_state_dict(..., assign=True)` then gives it its tensors.
    Raises ConfigError for scenes, owners or gates that make no sense.
    """

    def __init__(
        self,
        architecture: Architecture,
        scenes: Iterable[str] = (),
        owners: Mapping[str, str] | None = None,
        compact_gates: Mapping[str, bool] | None = None,
    ):
        super().__init__()
        self.architecture = architecture
        self.scenes: list[str] = []
        self.owners: dict[str, str] = {}
        self.backbone = Backbone(architecture)
        self.head = SceneSpecific(
            lambda: SceneCoordinateHead(
                architecture.widths[-1],
                architecture.head_widths,
                architecture.branch_width,
                architecture.head_kernel,
            )
        )
        self._by_scene = [m for m in self.modules() if isinstance(m, SceneSpecific | ScoredLayer)]
        self.scored_layers = {
            name: module for name, module in self.named_modules() if isinstance(module, ScoredLayer)
        }
        for layer in self.scored_layers.values():
            if isinstance(layer, LayerAdaptiveConv2d):  # a normalisation is lent to nobody
                layer.owners = self.owners
        scenes = list(scenes)
        self.owners.update(_resolved(scenes, owners or {}))
        if compact_gates is None:
            update_gates(self.scored_layers.values())
        else:
            self._fix_gates(compact_gates)
        for scene in scenes:
            self._add_scene(scene)
        if compact_gates is not None:
            self.compact()

    def add_scene(self, scene: str, like: str | None = None, share_with: str | None = None) -> None:
        """Add a scene's own parameters.

        They are new, its specific weights clones of the shared ones; with `like` all of them are copies of
        that scene's, its normalisation statistics included. With `share_with` the scene uses that scene's
        specific convolutions and has none of its own; its normalisations, scored or not, it does have.

        Raises ConfigError for a name that is taken or not a plain word, for another scene that is not in the
        model, and for a compact model without `like` that has no weights to start from.
        """
        for other in (like, share_with):
            if other is not None:
                self._require(other)
        _require_name(scene, self.scenes)
        if like is None and any(
            layer.shared is None and (share_with is None or layer.owners is not self.owners)
            for layer in self.scored_layers.values()
        ):
            raise ConfigError(
                f"scene '{scene}' has no weights to start from, because a compact model keeps only those in "
                "use; name a scene of the model that it starts like"
            )
        if share_with is not None:
            self.owners[scene] = self.owners.get(share_with, share_with)
        self._add_scene(scene, like)
        self.to(next(self.parameters()).device)

    def remove_scene(self, scene: str) -> None:
        """Drop a scene's own tensors.

        If other scenes use its specific convolutions, the first of them becomes their owner.
        Raises ConfigError for a scene that is not in the model and for the last one.
        """
        self._require(scene)
        if len(self.scenes) == 1:
            raise ConfigError(f"scene '{scene}' is the model's last; delete the checkpoint instead")
        for module in self._by_scene:
            module.remove_scene(scene)
        borrowers = [borrower for borrower, owner in self.owners.items() if owner == scene]
        for borrower in borrowers:
            self.owners[borrower] = borrowers[0]
        for owning in (scene, *borrowers[:1]):  # in place: the layers refer to this dict
            self.owners.pop(owning, None)
        self.scenes.remove(scene)

    def compact(self) -> None:
        """Drop every weight that no gate selects, for deployment.

        Predictions and counts stay what they are, the state_dict holds what inference uses and the scores,
        and the gates are fixed.
        """
        for layer in self.scored_layers.values():
            layer.compact()

    def scene_tensors(self, scene: str) -> dict[str, Tensor]:
        """Parameters and buffers that belong to a scene alone, by their name in the state_dict.

        Specific convolutions belong to the scene that owns them. Raises ConfigError for an unknown scene.
        """
        self._require(scene)
        key = scene_key(scene)
        return {
            name: tensor for name, tensor in self.state_dict(keep_vars=True).items() if key in name.split(".")
        }

    def used_tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers but the weights that no gate selects: the state_dict after `compact`."""
        unused = tuple(
            f"{name}.{'specific.' if layer.is_shared else 'shared'}"
            for name, layer in self.scored_layers.items()
        )
        tensors = self.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}

    def scene_parameters(self, scene: str) -> list[nn.Parameter]:
        """Every parameter that belongs to a scene alone. Raises ConfigError for an unknown scene."""
        return [tensor for tensor in self.scene_tensors(scene).values() if isinstance(tensor, nn.Parameter)]

    def shared_parameters(self) -> list[nn.Parameter]:
        """Every parameter but those of `scene_parameters` and the scores."""
        keys = {scene_key(scene) for scene in self.scenes}
        scores = {id(score) for score in self.scores()}
        return [
            parameter
            for name, parameter in self.named_parameters()
            if keys.isdisjoint(name.split(".")) and id(parameter) not in scores
        ]

    def scores(self) -> list[nn.Parameter]:
        """The scores of `scored_layers`, in their order."""
        return [layer.score for layer in self.scored_layers.values()]

    def set_scene_frame(self, scene: str, centre: Tensor, extent: Tensor) -> None:
        """Set the point (3,) and the length from which the scene's coordinates are regressed, in metres."""
        head = self.head.modules_by_scene[scene_key(scene)]
        assert isinstance(head, SceneCoordinateHead)
        head.centre.copy_(centre)
        head.extent.copy_(extent)

    def train(self, mode: bool = True) -> "OFVLMS":
        update_gates(self.scored_layers.values())
        return super().train(mode)

    def forward(self, images: Tensor, scene: str) -> Prediction:
        """Predict one scene's coordinates for a batch of its images."""
        return self.regress(self.backbone(images, scene), scene)

    def regress(self, features: Tensor, scene: str) -> Prediction:
        """What a scene's head says of the backbone's features (B, C, h, w)."""
        output = self.head(features, scene)
        return Prediction(output[:, :3], output[:, 3:].clamp(*LOG_UNCERTAINTY_RANGE))

    def _add_scene(self, scene: str, like: str | None = None) -> None:
        _require_name(scene, self.scenes)
        for module in self._by_scene:
            module.add_scene(scene, like)
        self.scenes.append(scene)

    def _require(self, scene: str) -> None:
        if scene not in self.scenes:
            known = ", ".join(self.scenes) or "none"
            raise ConfigError(f"unknown scene '{scene}'; the model has: {known}")

    def _fix_gates(self, gates: Mapping[str, bool]) -> None:
        if gates.keys() != self.scored_layers.keys():
            odd = sorted(gates.keys() ^ self.scored_layers.keys())[0]
            raise ConfigError(
                f"the compact model's layers do not fit its architecture ('{odd}'); write it anew"
            )
        for name, layer in self.scored_layers.items():
            layer.is_shared = gates[name]
            if layer.is_shared:  # a specific layer needs its shared weights until the scenes have theirs
                layer.compact()


def _require_name(scene: str, taken: Iterable[str]) -> None:
    if scene in taken:
        raise ConfigError(f"scene '{scene}' is in the model already; give the new scene another name")
    if not SCENE_NAME.fullmatch(scene):
        raise ConfigError(f"scene name '{scene}' must be letters, digits, '_' and '-'; rename its folder")


def _resolved(scenes: list[str], owners: Mapping[str, str]) -> dict[str, str]:
    """The scene at the end of every chain of owners, in the order of `scenes`."""
    resolved = {}
    for scene in (scene for scene in scenes if scene in owners):
        chain = [scene]
        while chain[-1] in owners:
            chain.append(owners[chain[-1]])
            if chain[-1] in chain[:-1]:
                raise ConfigError(f"scene '{scene}' shares with itself; let one scene own the convolutions")
        resolved[scene] = chain[-1]
    for scene in (*owners, *resolved.values()):
        if scene not in scenes:
            raise ConfigError(
                f"unknown scene '{scene}' in what shares with what; the model has: {', '.join(scenes)}"
            )
    return resolved
