"""Networks whose weights are constant expressions: masked, normalised, cut, joined, cast, quantised, computed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from exporters.construction import CHANNELS, OUT, Computed, construction, kernel, trained

AXES = (1, 2, 3)


def _conv(**options: bool) -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, OUT, 3, padding=1, **options)


# What torch.nn.utils offers.
@construction()
def weight_norm_old() -> nn.Module:
    return nn.Sequential(torch.nn.utils.weight_norm(_conv()), nn.ReLU())


@construction()
def weight_norm_old_whole() -> nn.Module:
    return torch.nn.utils.weight_norm(_conv(), dim=None)


@construction()
def weight_norm() -> nn.Module:
    return parametrizations.weight_norm(_conv())


@construction()
def weight_norm_inputs() -> nn.Module:
    return parametrizations.weight_norm(_conv(), dim=1)


@construction()
def weight_norm_whole() -> nn.Module:
    return parametrizations.weight_norm(_conv(), dim=None)


@construction(training=True)
def spectral_norm_old() -> nn.Module:
    return nn.Sequential(torch.nn.utils.spectral_norm(_conv()), nn.ReLU())


@construction()
def spectral_norm() -> nn.Module:
    return parametrizations.spectral_norm(_conv())


@construction()
def orthogonal() -> nn.Module:
    return parametrizations.orthogonal(_conv())


@construction((1, 2, 12, 12))
def orthogonal_cayley() -> nn.Module:
    return parametrizations.orthogonal(nn.Conv2d(2, 18, 3), orthogonal_map="cayley")


class _Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return (weight + weight.flip(3)) / 2


@construction()
def parametrised_symmetric() -> nn.Module:
    conv = _conv()
    parametrize.register_parametrization(conv, "weight", _Symmetric())
    return conv


@construction()
def pruned_l1() -> nn.Module:
    return nn.Sequential(prune.l1_unstructured(_conv(), "weight", amount=0.5), nn.ReLU())


@construction()
def pruned_channels() -> nn.Module:
    return prune.ln_structured(_conv(), "weight", amount=3, n=2, dim=0)


@construction()
def pruned_twice() -> nn.Module:
    conv = prune.random_unstructured(_conv(), "weight", amount=0.3)
    return prune.custom_from_mask(conv, "weight", (torch.rand(OUT, CHANNELS, 3, 3) > 0.4).float())


# Masks and constants.
@construction()
def mask_times_weight() -> nn.Module:
    mask = (torch.rand(OUT, CHANNELS, 3, 3) > 0.5).float()
    return Computed(lambda m: m.w * m.mask, w=kernel(), buffers={"mask": mask})


@construction()
def mask_where() -> nn.Module:
    mask = torch.rand(OUT, CHANNELS, 3, 3) > 0.5
    return Computed(lambda m: torch.where(m.mask, m.w, torch.zeros(())), w=kernel(), buffers={"mask": mask})


@construction()
def mask_filled() -> nn.Module:
    mask = torch.rand(OUT, CHANNELS, 3, 3) > 0.5
    return Computed(lambda m: m.w.masked_fill(m.mask, 0.0), w=kernel(), buffers={"mask": mask})


@construction()
def mask_of_pixelcnn() -> nn.Module:
    mask = torch.ones(3, 3)
    mask[1, 2:] = 0
    mask[2] = 0
    return Computed(lambda m: m.w * m.mask, w=kernel(), buffers={"mask": mask})


@construction()
def mask_learned() -> nn.Module:
    return Computed(lambda m: m.w * (m.score.abs() > 0.1).float(), w=kernel(), score=kernel())


@construction()
def mask_triangular() -> nn.Module:
    return Computed(lambda m: torch.tril(m.w), w=kernel())


# Normalised and scaled.
@construction()
def standardised() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        mean = m.w.mean(AXES, keepdim=True)
        return (m.w - mean) / (m.w.std(AXES, keepdim=True) + 1e-5)

    return Computed(weight, w=kernel())


@construction()
def standardised_variance() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        variance, mean = torch.var_mean(m.w, AXES, keepdim=True, unbiased=False)
        return m.gain * (m.w - mean) * torch.rsqrt(variance + 1e-6)

    return Computed(weight, w=kernel(), gain=trained(OUT, 1, 1, 1))


@construction()
def standardised_by_batch_norm() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        flat = m.w.reshape(1, OUT, -1)
        return functional.batch_norm(flat, None, None, m.gain, training=True, momentum=0.0, eps=1e-6).reshape(m.w.shape)

    return Computed(weight, w=kernel(), gain=trained(OUT))


@construction()
def equalised() -> nn.Module:
    return Computed(lambda m: m.w * (1 / math.sqrt(9 * CHANNELS)), w=kernel())


@construction()
def l2_normalised() -> nn.Module:
    return Computed(lambda m: functional.normalize(m.w.flatten(1), dim=1).view_as(m.w), w=kernel())


@construction()
def l1_normalised() -> nn.Module:
    return Computed(lambda m: m.w / m.w.abs().sum(AXES, keepdim=True), w=kernel())


@construction()
def frobenius_normalised() -> nn.Module:
    return Computed(lambda m: m.w / torch.linalg.vector_norm(m.w), w=kernel())


@construction()
def demodulated() -> nn.Module:
    return Computed(lambda m: m.w * torch.rsqrt(m.w.pow(2).sum(AXES, keepdim=True) + 1e-8), w=kernel())


@construction()
def batch_norm_fused() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        return m.w * (m.gamma / torch.sqrt(m.variance + 1e-5)).reshape(-1, 1, 1, 1)

    return Computed(weight, w=kernel(), gamma=trained(OUT), buffers={"variance": torch.rand(OUT) + 0.5})


@construction()
def mean_removed() -> nn.Module:
    return Computed(lambda m: m.w - m.w.mean((2, 3), keepdim=True), w=kernel())


@construction()
def maximum_scaled() -> nn.Module:
    return Computed(lambda m: m.w / m.w.abs().amax(AXES, keepdim=True).clamp(min=1e-6), w=kernel())


@construction()
def kernel_softmax() -> nn.Module:
    return Computed(lambda m: torch.softmax(m.w.flatten(2), -1).view_as(m.w), w=kernel())


# Sums and products of parameters.
@construction()
def low_rank_adapter() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        return m.w + (m.b @ m.a).view(m.w.shape) * 0.5

    return Computed(weight, w=kernel(), a=trained(2, CHANNELS * 9), b=trained(OUT, 2))


@construction()
def low_rank_hadamard() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        return m.w + ((m.a @ m.b) * (m.c @ m.d)).reshape(m.w.shape)

    parts = {"a": trained(OUT, 2), "b": trained(2, CHANNELS * 9), "c": trained(OUT, 2), "d": trained(2, CHANNELS * 9)}
    return Computed(weight, w=kernel(), **parts)


@construction()
def low_rank_dora() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        moved = m.w + (m.b @ m.a).view(m.w.shape)
        return m.gain * moved / moved.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)

    return Computed(weight, w=kernel(), gain=trained(OUT, 1, 1, 1), a=trained(2, CHANNELS * 9), b=trained(OUT, 2))


@construction()
def einsum_built() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        return torch.einsum("or,ri,rhw->oihw", m.a, m.b, m.c)

    return Computed(weight, a=trained(OUT, 3), b=trained(3, CHANNELS), c=trained(3, 3, 3))


@construction()
def matmul_built() -> nn.Module:
    """A dictionary of 3×3 atoms, as in DCFNet."""
    return Computed(
        lambda m: (m.a @ m.atoms).reshape(OUT, CHANNELS, 3, 3), a=trained(OUT * CHANNELS, 5), atoms=trained(5, 9)
    )


@construction()
def linear_built() -> nn.Module:
    return Computed(
        lambda m: functional.linear(m.a, m.atoms, m.b).view(OUT, CHANNELS, 3, 3),
        a=trained(OUT * CHANNELS, 5),
        atoms=trained(9, 5),
        b=trained(9),
    )


@construction()
def outer_product() -> nn.Module:
    return Computed(
        lambda m: m.a.unsqueeze(-1) * m.b.unsqueeze(-2), a=trained(OUT, CHANNELS, 3), b=trained(OUT, CHANNELS, 3)
    )


@construction()
def kronecker() -> nn.Module:
    return Computed(lambda m: torch.kron(m.a, m.b).reshape(OUT, CHANNELS, 3, 3), a=trained(4, 2), b=trained(2, 18))


@construction()
def one_by_one_into_three_by_three() -> nn.Module:
    """A 1×1 and a 3×3 convolution merged: the kernel of the second mixed by the first."""
    return Computed(
        lambda m: functional.conv2d(m.w, m.p.permute(1, 0, 2, 3)), w=kernel(into=6), p=trained(6, CHANNELS, 1, 1)
    )


@construction()
def sum_of_experts() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        return (torch.softmax(m.shares, 0).reshape(-1, 1, 1, 1, 1) * m.experts).sum(0)

    return Computed(weight, experts=trained(3, OUT, CHANNELS, 3, 3), shares=trained(3))


@construction()
def central_difference() -> nn.Module:
    def weight(m: Computed) -> Tensor:
        return m.w - 0.7 * functional.pad(m.w.sum((2, 3), keepdim=True), (1, 1, 1, 1))

    return Computed(weight, w=kernel())


@construction()
def averaged_weights() -> nn.Module:
    """An exponential moving average taken at the last moment."""
    return Computed(lambda m: torch.lerp(m.w, m.slow, 0.9), w=kernel(), slow=kernel())
