"""Weights put together from parameters: branches, cuts, joins, moves, and what else `expressions` does not have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.construction import CHANNELS, OUT, Computed, construction, kernel, trained
from exporters.expressions import AXES, _conv


# Re-parametrised branches.
@construction()
def repvgg_sum() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        return m.w + functional.pad(m.p, [1, 1, 1, 1]) + functional.pad(m.eye, [1, 1, 1, 1])

    eye = torch.eye(OUT).reshape(OUT, OUT, 1, 1)[:, :CHANNELS].contiguous()
    return Computed(weight, w=kernel(), p=trained(OUT, CHANNELS, 1, 1), buffers={"eye": eye})


@construction()
def asymmetric_sum() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        return m.w + functional.pad(m.v, (1, 1, 0, 0)) + functional.pad(m.h, (0, 0, 1, 1))

    return Computed(weight, w=kernel(), v=trained(OUT, CHANNELS, 3, 1), h=trained(OUT, CHANNELS, 1, 3))


@construction()
def padded_1x1() -> nn.Module:
    return Computed(lambda m: functional.pad(m.p, (1, 1, 1, 1)), p=trained(OUT, CHANNELS, 1, 1))


# Cut, joined, moved.
@construction()
def flipped() -> nn.Module:
    return Computed(lambda m: torch.flip(m.w, (2, 3)), w=kernel())


@construction()
def rotated_copies() -> nn.Module:
    return Computed(lambda m: torch.cat([torch.rot90(m.w, k, (2, 3)) for k in range(4)]), w=kernel(out=2))


@construction()
def rolled() -> nn.Module:
    return Computed(lambda m: torch.roll(m.w, (1, 1), (2, 3)), w=kernel())


BLUR = torch.outer(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])) / 16


@construction()
def blur_expanded() -> nn.Module:
    return Computed(lambda m: m.blur.expand(CHANNELS, 1, 3, 3), groups=CHANNELS, buffers={"blur": BLUR[None, None]})


@construction()
def blur_repeated() -> nn.Module:
    return Computed(
        lambda m: m.blur[None, None].repeat(CHANNELS, 1, 1, 1), groups=CHANNELS, buffers={"blur": BLUR.clone()}
    )


@construction()
def blur_outer_product() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        square = m.line[:, None] * m.line[None, :]
        return (square / square.sum()).expand(CHANNELS, 1, 3, 3)

    return Computed(weight, groups=CHANNELS, buffers={"line": torch.tensor([1.0, 2.0, 1.0])})


@construction()
def sobel_stacked() -> nn.Module:
    edge = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    return Computed(
        lambda m: torch.stack([m.edge, m.edge.t()]).unsqueeze(1).repeat(CHANNELS, 1, 1, 1),
        groups=CHANNELS,
        buffers={"edge": edge},
    )


@construction()
def concatenated() -> nn.Module:
    return Computed(lambda m: torch.cat([m.a, m.b], 0), a=kernel(5), b=kernel(3))


@construction()
def concatenated_inputs() -> nn.Module:
    return Computed(lambda m: torch.cat((m.a, m.b), dim=1), a=kernel(into=1), b=kernel(into=3))


@construction()
def stacked() -> nn.Module:
    columns = {"a": trained(OUT, CHANNELS, 3), "b": trained(OUT, CHANNELS, 3)}
    return Computed(lambda m: torch.stack([m.a, m.b, m.a], -1), **columns)


@construction()
def chunked() -> nn.Module:
    return Computed(lambda m: m.w.chunk(2)[1], w=kernel(2 * OUT))


class _Split(nn.Module):
    """One parameter, split over two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(kernel(OUT + 6))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.w.split([OUT, 6])
        return functional.conv2d(torch.relu(functional.conv2d(x, first)), second.repeat(1, 2, 1, 1))


@construction()
def split_over_two() -> nn.Module:
    return _Split()


@construction()
def unbound() -> nn.Module:
    return Computed(lambda m: m.bank.unbind(0)[2], bank=trained(3, OUT, CHANNELS, 3, 3))


@construction()
def selected() -> nn.Module:
    return Computed(lambda m: m.bank[1], bank=trained(3, OUT, CHANNELS, 3, 3))


@construction()
def slimmed() -> nn.Module:
    return Computed(lambda m: m.w[:OUT, :CHANNELS], w=kernel(2 * OUT, 2 * CHANNELS))


@construction()
def strided_slice() -> nn.Module:
    return Computed(lambda m: m.w[::2, 1::2], w=kernel(2 * OUT, 2 * CHANNELS))


@construction()
def cropped_5x5() -> nn.Module:
    return Computed(lambda m: m.w[:, :, 1:-1, 1:-1], w=kernel(size=5))


@construction()
def transformed_5x5() -> nn.Module:
    """As in Once-for-All: the centre of a larger kernel, mixed by a matrix."""

    def weight(m: Computed) -> Tensor:
        return functional.linear(m.w[:, :, 1:4, 1:4].reshape(-1, 9), m.mix).view(OUT, CHANNELS, 3, 3)

    return Computed(weight, w=kernel(size=5), mix=torch.eye(9) + trained(9, 9))


@construction()
def permuted() -> nn.Module:
    """Stored height, width, in, out, as TensorFlow has it."""
    return Computed(lambda m: m.w.permute(3, 2, 0, 1), w=trained(3, 3, CHANNELS, OUT))


@construction()
def transposed_of_transposed_conv() -> nn.Module:
    return Computed(lambda m: m.w.transpose(0, 1).flip(2).flip(3), w=trained(CHANNELS, OUT, 3, 3))


@construction()
def flat_parameters() -> nn.Module:
    """All parameters in one vector, as in meta learning."""
    size = OUT * CHANNELS * 9
    return Computed(lambda m: m.theta[10 : 10 + size].view(OUT, CHANNELS, 3, 3), theta=trained(size + 20))


@construction()
def index_selected() -> nn.Module:
    order = torch.tensor([3, 0, 2, 1])
    return Computed(lambda m: m.w.index_select(1, m.order), w=kernel(), buffers={"order": order})


@construction()
def index_by_tensors() -> nn.Module:
    order = torch.tensor([7, 1, 1, 0, 3, 2, 5, 4])
    return Computed(lambda m: m.w[m.order], w=kernel(), buffers={"order": order})


@construction()
def gathered() -> nn.Module:
    order = torch.randint(0, 9, (OUT, CHANNELS, 9))
    return Computed(
        lambda m: m.w.flatten(2).gather(2, m.order).reshape(OUT, CHANNELS, 3, 3), w=kernel(), buffers={"order": order}
    )


@construction()
def clustered() -> nn.Module:
    """A codebook: indices into a table of values."""
    codes = torch.randint(0, 16, (OUT, CHANNELS, 3, 3))
    return Computed(lambda m: m.table[m.codes], table=trained(16), buffers={"codes": codes})


@construction()
def embedded() -> nn.Module:
    codes = torch.randint(0, 16, (OUT, CHANNELS))
    return Computed(
        lambda m: functional.embedding(m.codes, m.table).reshape(OUT, CHANNELS, 3, 3),
        table=trained(16, 9),
        buffers={"codes": codes},
    )


@construction()
def scattered() -> nn.Module:
    """Non-zero values put into zeros."""
    places = torch.randperm(OUT * CHANNELS * 9)[:60]

    def weight(m: Computed) -> Tensor:
        return torch.zeros(OUT * CHANNELS * 9).scatter(0, m.places, m.values).reshape(OUT, CHANNELS, 3, 3)

    return Computed(weight, values=trained(60), buffers={"places": places})


@construction()
def index_put() -> nn.Module:
    rows = torch.tensor([0, 2, 5])

    def weight(m: Computed) -> Tensor:
        weight = m.w.clone()
        weight[m.rows] = m.other
        return weight

    return Computed(weight, w=kernel(), other=kernel(3), buffers={"rows": rows})


@construction()
def tiled() -> nn.Module:
    return Computed(lambda m: torch.tile(m.w, (2, 2, 1, 1)), w=kernel(4, 2))


@construction()
def interleaved() -> nn.Module:
    return Computed(lambda m: m.w.repeat_interleave(2, 0), w=kernel(4))


@construction()
def resized_5x5() -> nn.Module:
    return Computed(lambda m: functional.interpolate(m.w, size=(3, 3), mode="nearest"), w=kernel(size=5))


@construction()
def resized_bilinear() -> nn.Module:
    return Computed(lambda m: functional.interpolate(m.w, scale_factor=0.5, mode="bilinear"), w=kernel(size=6))


@construction()
def pooled_6x6() -> nn.Module:
    return Computed(lambda m: functional.avg_pool2d(m.w, 2), w=kernel(size=6))


@construction()
def inflated_to_2d() -> nn.Module:
    """The middle of a 3-D kernel."""
    return Computed(lambda m: m.w[:, :, 1], w=trained(OUT, CHANNELS, 3, 3, 3))


@construction()
def summed_3d() -> nn.Module:
    return Computed(lambda m: m.w.sum(2), w=trained(OUT, CHANNELS, 3, 3, 3))


# Functions of each weight.
@construction()
def tanh() -> nn.Module:
    return Computed(lambda m: torch.tanh(m.w), w=kernel())


@construction()
def sigmoid() -> nn.Module:
    return Computed(lambda m: torch.sigmoid(m.w), w=kernel())


@construction()
def exponential() -> nn.Module:
    return Computed(lambda m: m.w.exp(), w=kernel())


@construction()
def softplus() -> nn.Module:
    return Computed(lambda m: functional.softplus(m.w), w=kernel())


@construction()
def clamped() -> nn.Module:
    return Computed(lambda m: m.w.clamp(-0.1, 0.1), w=kernel())


@construction()
def non_negative() -> nn.Module:
    return Computed(lambda m: torch.relu(m.w), w=kernel())


@construction()
def squared() -> nn.Module:
    return Computed(lambda m: m.w**2, w=kernel())


@construction()
def cubed_and_rooted() -> nn.Module:
    return Computed(lambda m: m.w**3 + m.w.abs().sqrt() * torch.sign(m.w), w=kernel())


@construction()
def soft_thresholded() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        return torch.sign(m.w) * torch.relu(m.w.abs() - torch.sigmoid(m.t))

    return Computed(weight, w=kernel(), t=trained(OUT, 1, 1, 1) - 2)


@construction()
def binarised() -> nn.Module:
    return Computed(lambda m: torch.sign(m.w) * m.w.abs().mean(AXES, keepdim=True), w=kernel())


@construction()
def ternary() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        limit = 0.7 * m.w.abs().mean()
        return m.scale * ((m.w > limit).float() - (m.w < -limit).float())

    return Computed(weight, w=kernel(), scale=trained(OUT, 1, 1, 1))


@construction()
def dorefa() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        squashed = torch.tanh(m.w)
        unit = squashed / (2 * squashed.abs().max()) + 0.5
        return 2 * torch.round(unit * 15) / 15 - 1

    return Computed(weight, w=kernel())


@construction()
def rounded_to_scale() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        return torch.clamp(torch.round(m.w / m.scale), -8, 7) * m.scale

    return Computed(weight, w=kernel(), scale=trained(OUT, 1, 1, 1).abs() / 8)


@construction()
def fake_quantised() -> nn.Module:
    return Computed(lambda m: torch.fake_quantize_per_tensor_affine(m.w, 0.01, 0, -128, 127), w=kernel())


@construction()
def fake_quantised_channels() -> nn.Module:
    scale = trained(OUT).abs() / 40 + 1e-3
    return Computed(
        lambda m: torch.fake_quantize_per_channel_affine(m.w, m.scale, m.zero, 0, -128, 127),
        w=kernel(),
        buffers={"scale": scale, "zero": torch.zeros(OUT, dtype=torch.int32)},
    )


@construction()
def stored_in_int8() -> nn.Module:
    codes = torch.randint(-128, 128, (OUT, CHANNELS, 3, 3), dtype=torch.int8)
    return Computed(lambda m: m.codes.float() * m.scale, scale=trained(OUT, 1, 1, 1) / 50, buffers={"codes": codes})


@construction()
def stored_in_uint8_with_zero() -> nn.Module:
    codes = torch.randint(0, 256, (OUT, CHANNELS, 3, 3), dtype=torch.uint8)
    zero = torch.randint(100, 150, (OUT, 1, 1, 1), dtype=torch.uint8)
    return Computed(
        lambda m: (m.codes.to(torch.int32) - m.zero.to(torch.int32)).float() * m.scale,
        scale=trained(OUT, 1, 1, 1) / 50,
        buffers={"codes": codes, "zero": zero},
    )


@construction()
def stored_in_nibbles() -> nn.Module:
    """Two 4-bit numbers a byte, taken apart by shifts and masks."""
    packed = torch.randint(0, 256, (OUT, CHANNELS * 9 // 2), dtype=torch.int32)

    def weight(m: Computed) -> Tensor:
        low, high = m.packed & 15, torch.div(m.packed, 16, rounding_mode="floor")
        return (torch.stack([low, high], -1).reshape(OUT, CHANNELS, 3, 3).float() - 8) * m.scale

    return Computed(weight, scale=trained(OUT, 1, 1, 1) / 8, buffers={"packed": packed})


# Cast.
@construction()
def stored_in_half() -> nn.Module:
    return Computed(lambda m: m.half_weight.float(), buffers={"half_weight": kernel().half()})


@construction()
def stored_in_bfloat16() -> nn.Module:
    return Computed(lambda m: m.short_weight.float(), buffers={"short_weight": kernel().bfloat16()})


@construction()
def stored_in_double() -> nn.Module:
    return Computed(lambda m: (m.long_weight * 1.1).float(), buffers={"long_weight": kernel().double()})


@construction()
def rounded_through_half() -> nn.Module:
    return Computed(lambda m: m.w.half().float() * m.gain, w=kernel(), gain=trained(OUT, 1, 1, 1))


class _HalfNet(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = nn.Sequential(_conv(), nn.ReLU(), nn.Conv2d(OUT, OUT, 3)).to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.to(self.dtype)).float()


@construction()
def network_in_half() -> nn.Module:
    return _HalfNet(torch.float16)


@construction()
def network_in_double() -> nn.Module:
    return _HalfNet(torch.float64)


@construction()
def network_in_bfloat16() -> nn.Module:
    return _HalfNet(torch.bfloat16)


# Made of no parameter at all, or of few.
@construction()
def gabor() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        angle = m.angle.reshape(OUT, 1, 1, 1)
        x, y = m.grid[0] * torch.cos(angle), m.grid[1] * torch.sin(angle)
        return torch.exp(-((x + y) ** 2) / m.width**2) * torch.cos(2 * math.pi * (x + y) / 3).expand(-1, CHANNELS, 3, 3)

    grid = torch.stack(torch.meshgrid(torch.arange(-1.0, 2), torch.arange(-1.0, 2), indexing="ij"))
    return Computed(weight, angle=torch.rand(OUT) * 3, width=torch.tensor(1.3), buffers={"grid": grid})


@construction()
def arange_built() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        line = torch.arange(9, dtype=torch.float32).reshape(1, 1, 3, 3)
        return torch.sin(line * m.frequency)

    return Computed(weight, frequency=trained(OUT, CHANNELS, 1, 1))


@construction()
def dirac() -> nn.Module:
    identity = nn.init.dirac_(torch.empty(CHANNELS, CHANNELS, 3, 3))
    return Computed(lambda m: m.identity * m.gain, gain=trained(CHANNELS, 1, 1, 1), buffers={"identity": identity})


@construction()
def cumulative() -> nn.Module:
    return Computed(lambda m: m.w.cumsum(0), w=kernel())


@construction()
def shift_kernels() -> nn.Module:
    """One-hot kernels that shift a channel each."""
    places = torch.randint(0, 9, (CHANNELS,))
    return Computed(
        lambda m: functional.one_hot(m.places, 9).float().reshape(CHANNELS, 1, 3, 3),
        groups=CHANNELS,
        buffers={"places": places},
    )


@construction()
def constant_ones() -> nn.Module:
    """Generated, never trained: a box filter of ConstantOfShape or Expand."""
    return Computed(lambda m: torch.ones(CHANNELS, 1, 3, 3) / 9, groups=CHANNELS)
