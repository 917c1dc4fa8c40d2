"""A small network whose 3×3 weights are made in one way, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS, OUT = 4, 8


@dataclass(frozen=True)
class Construction:
    """How to build a network. `training`: it is exported in training mode too; `dynamic`: weights depend on inputs."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (1, CHANNELS, 12, 12)
    training: bool = False
    dynamic: bool = False
    external: bool = False
    script: bool = False

    def make(self) -> nn.Module:
        """Return the network with its seeded weights, in evaluation mode."""
        torch.manual_seed(sum(map(ord, self.name)))
        network = self.build()
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    _spread(module)
        return network.eval()

    def input(self) -> Tensor:
        """Return an input for tracing and for comparing outputs."""
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(7))


def _spread(norm: nn.BatchNorm2d) -> None:
    """Give a batch normalisation statistics as after training, so that folding it changes the weights."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.3, 3.0)
    if norm.affine:
        norm.weight.uniform_(-1.5, 1.5)
        norm.bias.normal_()


CONSTRUCTIONS: dict[str, Construction] = {}


def construction(
    shape: tuple[int, ...] = (1, CHANNELS, 12, 12),
    *,
    training: bool = False,
    dynamic: bool = False,
    external: bool = False,
    script: bool = False,
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Register a function that builds a network under the function's name."""

    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        name = build.__name__
        assert name not in CONSTRUCTIONS
        CONSTRUCTIONS[name] = Construction(name, build, shape, training, dynamic, external, script)
        return build

    return register


class Computed(nn.Module):
    """A 3×3 convolution whose weight is computed from parameters at each call: `weight(module)`."""

    def __init__(
        self,
        weight: Callable[[Computed], Tensor],
        *,
        groups: int = 1,
        buffers: dict[str, Tensor] | None = None,
        **parameters: Tensor,
    ) -> None:
        super().__init__()
        self.compute = weight
        self.groups = groups
        for name, tensor in parameters.items():
            self.register_parameter(name, nn.Parameter(tensor))
        for name, tensor in (buffers or {}).items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(functional.conv2d(x, self.compute(self), padding=1, groups=self.groups))


def trained(*shape: int, scale: float = 0.2) -> Tensor:
    """Return weights with unequal channels, as training leaves them."""
    tensor = torch.randn(*shape) * scale
    return tensor * torch.linspace(0.5, 2.0, shape[0]).reshape(-1, *[1] * (len(shape) - 1))


def kernel(out: int = OUT, into: int = CHANNELS, size: int = 3) -> Tensor:
    """Return the weight (out, into, size, size) of a convolution."""
    return trained(out, into, size, size)
