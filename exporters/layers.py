"""Networks of ordinary layers: strides, groups, batch normalisation, shared weights, and what is no 3×3 convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.construction import CHANNELS, OUT, construction, kernel


@construction(external=True)
def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, OUT, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(OUT, OUT, 1),
        nn.ReLU(),
        nn.Conv2d(OUT, OUT, 5, padding=2, bias=False),
        nn.SiLU(),
        nn.Conv2d(OUT, CHANNELS, 3, bias=False),
    )


@construction()
def strides_dilations() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, OUT, 3, stride=2, padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(OUT, OUT, 3, dilation=2, padding=2),
        nn.Conv2d(OUT, OUT, 3, stride=(2, 1), dilation=(1, 2), padding="valid"),
    )


@construction()
def grouped_depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, OUT, 3, groups=2, padding=1),
        nn.Hardswish(),
        nn.Conv2d(OUT, OUT, 3, groups=OUT, padding=1),
        nn.Conv2d(OUT, 2 * OUT, 3, groups=OUT, padding=1),
    )


@construction()
def padding_modes() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, OUT, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(OUT, OUT, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(OUT, OUT, 3, padding="same", padding_mode="replicate"),
    )


def _block(into: int, out: int, **options: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, padding=1, bias=False, **options), nn.BatchNorm2d(out), nn.ReLU())


@construction(training=True)
def batch_norm() -> nn.Module:
    return nn.Sequential(_block(CHANNELS, OUT), _block(OUT, OUT, groups=OUT), _block(OUT, OUT))


@construction(training=True)
def batch_norm_without_affine() -> nn.Module:
    return nn.Sequential(nn.Conv2d(CHANNELS, OUT, 3), nn.BatchNorm2d(OUT, affine=False))


@construction(training=True)
def batch_norm_behind_dropout() -> nn.Module:
    return nn.Sequential(nn.Conv2d(CHANNELS, OUT, 3), nn.Dropout2d(0.3), nn.BatchNorm2d(OUT))


@construction(training=True)
def batch_norm_first() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.Conv2d(CHANNELS, OUT, 3))


class _Bias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(1, OUT, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


@construction(training=True)
def batch_norm_behind_bias() -> nn.Module:
    return nn.Sequential(nn.Conv2d(CHANNELS, OUT, 3, bias=False), _Bias(), nn.BatchNorm2d(OUT))


@construction(training=True)
def batch_norm_behind_padding() -> nn.Module:
    return nn.Sequential(nn.Conv2d(CHANNELS, OUT, 3), nn.ZeroPad2d(1), nn.BatchNorm2d(OUT))


@construction()
def other_norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, OUT, 3),
        nn.GroupNorm(2, OUT),
        nn.Conv2d(OUT, OUT, 3),
        nn.InstanceNorm2d(OUT, affine=True),
    )


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(CHANNELS, OUT)
        self.first, self.second = _block(OUT, OUT), nn.Conv2d(OUT, OUT, 3, padding=1)
        self.shortcut = nn.Conv2d(OUT, OUT, 1)
        self.branches = nn.ModuleList([nn.Conv2d(OUT, 2, 3), nn.Conv2d(OUT, 2, 3), nn.Conv2d(OUT, 2, 3)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.second(self.first(x)) + self.shortcut(x))
        return torch.cat([branch(x) for branch in self.branches], 1)


@construction(external=True, training=True)
def residual() -> nn.Module:
    return _Residual()


class _Wide(nn.Module):
    """Channels in multiples of 16, so that onnxruntime's CPU kernels take blocks of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(3, 32)
        self.depthwise = _block(32, 32, groups=32)
        self.first, self.second = _block(32, 32), nn.Conv2d(32, 32, 3, padding=1)
        self.grouped = nn.Conv2d(32, 64, 3, groups=2, stride=2)
        self.head = nn.Conv2d(64, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.stem(x))
        x = torch.relu(self.second(self.first(x)) + x)
        return self.head(torch.sigmoid(self.grouped(x)))


@construction((1, 3, 16, 16), training=True)
def wide() -> nn.Module:
    return _Wide()


class _Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu(self.conv(x))) + functional.conv2d(x, self.conv.weight.flip(2, 3), padding=1)


@construction()
def shared() -> nn.Module:
    return _Shared()


@construction()
def conv_transpose() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(CHANNELS, OUT, 3), nn.ReLU(), nn.ConvTranspose2d(OUT, OUT, 3, stride=2))


@construction()
def conv_transpose_then_conv() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(CHANNELS, OUT, 3), nn.ReLU(), nn.Conv2d(OUT, OUT, 3))


@construction((1, CHANNELS, 12))
def conv_1d() -> nn.Module:
    return nn.Sequential(nn.Conv1d(CHANNELS, OUT, 3), nn.ReLU(), nn.Conv1d(OUT, OUT, 3))


@construction((1, CHANNELS, 6, 6, 6))
def conv_3d() -> nn.Module:
    return nn.Sequential(nn.Conv3d(CHANNELS, OUT, 3), nn.ReLU(), nn.Conv3d(OUT, OUT, (1, 3, 3)))


@construction()
def only_1x1() -> nn.Module:
    return nn.Sequential(nn.Conv2d(CHANNELS, OUT, 1), nn.ReLU(), nn.Conv2d(OUT, OUT, 1))


@construction((1, CHANNELS))
def no_convolution() -> nn.Module:
    return nn.Sequential(nn.Linear(CHANNELS, OUT), nn.ReLU(), nn.Linear(OUT, OUT))


class _Pooled(nn.Module):
    """A base for weights that depend on the input: a vector of it."""

    def pooled(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class _Predicted(_Pooled):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS, OUT * CHANNELS * 9)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.linear(self.pooled(x)).reshape(OUT, CHANNELS, 3, 3))


@construction(dynamic=True)
def dynamic_predicted() -> nn.Module:
    return _Predicted()


class _Mixture(_Pooled):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.randn(3, OUT, CHANNELS, 3, 3))
        self.route = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        shares = torch.softmax(self.route(self.pooled(x)), 1)
        return functional.conv2d(x, (shares.reshape(3, 1, 1, 1, 1) * self.experts).sum(0))


@construction(dynamic=True)
def dynamic_mixture() -> nn.Module:
    return _Mixture()


class _Modulated(_Pooled):
    """As in StyleGAN 2: modulated by a style of the input, then demodulated."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(kernel())
        self.style = nn.Linear(CHANNELS, CHANNELS)
        self.conv = nn.Conv2d(OUT, OUT, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.style(self.pooled(x)).reshape(1, -1, 1, 1)
        weight = weight * torch.rsqrt(weight.square().sum((1, 2, 3), keepdim=True) + 1e-8)
        return self.conv(torch.relu(functional.conv2d(x, weight)))


@construction(dynamic=True)
def dynamic_modulated_then_conv() -> nn.Module:
    return _Modulated()


class _Correlation(nn.Module):
    """As in a tracker: one half of the input is the kernel of the other."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, x[:, :, :3, :3])


@construction(dynamic=True)
def dynamic_correlation() -> nn.Module:
    return _Correlation()


class _Branches(nn.Module):
    """A condition that is an attribute: the exporters fold it, or write an `If`."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.deep = deep
        self.first, self.second = nn.Conv2d(CHANNELS, OUT, 3, padding=1), nn.Conv2d(CHANNELS, OUT, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.deep:  # noqa: SIM108 - TorchScript has to see the statement
            y = self.first(x)
        else:
            y = self.second(x)
        return y


@construction(script=True)
def scripted_if() -> nn.Module:
    return _Branches(True)


class _ByShape(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(CHANNELS, OUT, 3, padding=1), nn.Conv2d(OUT, OUT, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if x.size(2) > 3:
            y = self.second(y)
        return y


@construction(script=True)
def scripted_if_by_shape() -> nn.Module:
    return _ByShape()


class _Looped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.size(0) + 1):
            x = torch.relu(self.conv(x))
        return x


@construction(script=True)
def scripted_loop() -> nn.Module:
    return _Looped()
