"""The encoder of all three networks: a ResNet (He et al., CVPR 2016) that ImageNet's weights fit."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.nn import functional as F

from ofvl_core.errors import CheckpointError
from ofvl_core.network.sharing import init_convolution

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Of the colours of ImageNet's images, RGB in 0..1."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut around them."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = (
            None
            if stride == 1 and in_channels == channels
            else nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features if self.downsample is None else self.downsample(features)
        features = self.relu(self.bn1(self.conv1(features)))
        return self.relu(self.bn2(self.conv2(features)) + shortcut)


class ResNetEncoder(nn.Module):
    """Images (B, 3 `images`, H, W), RGB in -1..1, several one after the other in the channels, to five
    features of strides 2, 4, 8, 16 and 32 with `channels` channels.

    `blocks` and `width` as in Architecture; (2, 2, 2, 2) and 64 make ResNet18, (3, 4, 6, 3) ResNet34.
    Parameters are named as torchvision names them, and as there the network wants colours in units of
    ImageNet's mean and deviation, to which it brings the images itself.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, blocks: tuple[int, int, int, int], width: int, images: int = 1):
        super().__init__()
        self.images = images
        self.channels = (width, width, 2 * width, 4 * width, 8 * width)
        mean, deviation = (
            torch.tensor(values).repeat(images) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
        )
        self.register_buffer("mean", 2 * mean - 1, persistent=False)
        self.register_buffer("variance", (2 * deviation).square(), persistent=False)
        self.conv1 = nn.Conv2d(3 * images, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(width, width, blocks[0], 1)
        self.layer2 = _stage(width, 2 * width, blocks[1], 2)
        self.layer3 = _stage(2 * width, 4 * width, blocks[2], 2)
        self.layer4 = _stage(4 * width, 8 * width, blocks[3], 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_convolution(module.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        images = F.batch_norm(images, self.mean, self.variance, eps=0.0)
        features = [self.relu(self.bn1(self.conv1(images)))]
        features.append(self.layer1(self.maxpool(features[-1])))
        for stage in (self.layer2, self.layer3, self.layer4):
            features.append(stage(features[-1]))
        return features


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def load_imagenet(encoder: ResNetEncoder, path: Path) -> None:
    """Start an encoder from the weights of a classifier: a resnet18 or resnet34 of torchvision, as .pth or
    .safetensors.

    An encoder of several images gets the first convolution once for each, divided by their number: two equal
    images look to it like the one (monodepth2). The classifier's last layer is not used.
    Raises CheckpointError when the file is absent, unreadable or that of another network; the encoder then
    stays as it was.
    """
    found = {name: tensor for name, tensor in _tensors(path).items() if not name.startswith("fc.")}
    own = encoder.state_dict()
    for name in own:  # older files lack these counters, on which nothing depends
        if name.endswith("num_batches_tracked"):
            found.setdefault(name, own[name])
    if "conv1.weight" in found:
        found["conv1.weight"] = found["conv1.weight"].repeat(1, encoder.images, 1, 1) / encoder.images
    odd = next((name for name in sorted(own | found) if _shape(own, name) != _shape(found, name)), None)
    if odd is not None:
        there, here = _shape(found, odd), _shape(own, odd)
        raise CheckpointError(
            f"{path} does not fit: '{odd}' is {there} in it and {here} in the network; "
            "give the file of a torchvision resnet18 or resnet34 to a network that is built like it, 64 wide"
        )
    encoder.load_state_dict(found)


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return "x".join(map(str, tensors[name].shape)) or "a number" if name in tensors else "absent"


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        file = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path} ({error.strerror}); give the file of a torchvision resnet18 or resnet34"
        ) from None
    try:
        if path.suffix == ".safetensors":
            return load_tensors(file)
        content = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        content = None
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise CheckpointError(
            f"{path} holds no weights; give the file of a torchvision resnet18 or resnet34, as .pth or "
            ".safetensors"
        )
    return dict(content)
