"""The training monitor: what it costs in a ResNet-50, and what it finds in small networks, healthy and broken.

`make monitor-figures` runs it in the environment of `make monitor`, which has PyTorch. `--only PART` runs one part,
`--seeds N` repeats the healthy and the broken runs, and `--first F` begins with seed F. The thresholds were chosen with
seed 0.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from filterdb.monitor import Alarm, Callback, Row
from filterdb.monitor.networks import list_layers

EPOCH = 120
"""Steps of an epoch of the small networks."""

EPOCHS = 2
EVERY = 10
CLASSES = 8
BATCH = 32

PARTS = ("overhead", "healthy", "planted")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of the ResNet-50")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.only in {None, "overhead"}:
        print_overhead(options.repeats)
    if options.only in {None, "healthy"}:
        print_healthy(range(options.first, options.first + options.seeds))
    if options.only in {None, "planted"}:
        print_planted(range(options.first, options.first + options.seeds))


# The cost.


class Bottleneck(nn.Module):
    """A block of a ResNet-50."""

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            *(nn.Conv2d(into, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)),
        )
        self.beside = (
            nn.Identity()
            if into == out and stride == 1
            else nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.beside(x))


def resnet50() -> nn.Module:
    """Return a network with the layers of torchvision's resnet50: 25.6 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    into = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            layers.append(Bottleneck(into, width, 2 if stage and not block else 1))
            into = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, 1000))


def print_overhead(repeats: int) -> None:
    """Print the time of a measurement of a ResNet-50 and of a step of its training, and what follows for `every`."""
    torch.manual_seed(0)
    network = resnet50()
    layers = list_layers(network)
    filters = sum(len(layer.read()) for layer in layers)
    monitor = Callback(budget=None)
    monitor.measure(network)
    used = time.process_time()
    costs = [_seconds(lambda: monitor.measure(network)) for _ in range(repeats)]
    cost, used = statistics.median(costs), (time.process_time() - used) / repeats
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"ResNet-50: {parameters:,} parameters; {len(layers)} layers of 3x3 and 7x7 with {filters:,} filters")
    print(
        f"a measurement: {cost:.3f} s (median of {repeats}; {min(costs):.3f} to {max(costs):.3f}), {used:.3f} s of CPU"
    )
    print(f"at most 1 % of the time if steps take at least {cost:.3f} s, with the default of every 100 steps")
    for size, batch in ((64, 16), (224, 8)):
        before = time.process_time()
        step = _step_time(network, size, batch)
        cpu = (time.process_time() - before) / 4
        share = cost / (100 * step + cost)
        print(f"a step with {batch} images of {size}x{size}: {step:.2f} s, {cpu:.2f} s of CPU; share {share:.4%}")


def _step_time(network: nn.Module, size: int, batch: int) -> float:
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    step()
    return statistics.median(_seconds(step) for _ in range(3))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# Small networks.


def _conv(into: int, out: int, size: int = 3, *, norm: bool = True, **options: Any) -> list[nn.Module]:
    conv = nn.Conv2d(into, out, size, padding=size // 2, bias=not norm, **options)
    return [conv, nn.BatchNorm2d(out), nn.ReLU()] if norm else [conv, nn.ReLU()]


def _head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


def plain() -> nn.Module:
    """Return a network of 3x3 layers with ReLU and without normalisation."""
    layers = [*_conv(3, 16, norm=False), nn.MaxPool2d(2), *_conv(16, 32, norm=False), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, *_conv(32, 48, norm=False), *_head(48))


def deep() -> nn.Module:
    """Return a deeper one."""
    layers = [*_conv(3, 16, norm=False)]
    for _ in range(5):
        layers += _conv(16, 16, norm=False)
    return nn.Sequential(*layers, nn.MaxPool2d(2), *_conv(16, 32, norm=False), *_head(32))


def normalised() -> nn.Module:
    """Return one with batch normalisation, as VGG with it."""
    layers = [*_conv(3, 16), *_conv(16, 16), nn.MaxPool2d(2), *_conv(16, 32), *_conv(32, 32), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, *_conv(32, 64), *_head(64))


class Residual(nn.Module):
    """A block of two layers with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(channels, channels), *_conv(channels, channels)[:2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


def residual() -> nn.Module:
    """Return a small ResNet."""
    layers = [*_conv(3, 16), Residual(16), *_conv(16, 32, stride=2), Residual(32), *_conv(32, 48, stride=2)]
    return nn.Sequential(*layers, Residual(48), *_head(48))


def separable() -> nn.Module:
    """Return one of depthwise and 1x1 layers, as MobileNet."""
    layers = [*_conv(3, 16)]
    for into, out in ((16, 32), (32, 64), (64, 96)):
        layers += [*_conv(into, into, groups=into), *_conv(into, out, 1), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, *_head(96))


def large_kernels() -> nn.Module:
    """Return one of 7x7 and 5x5 layers with tanh, as LeNet."""
    layers: list[nn.Module] = [nn.Conv2d(3, 12, 7, padding=3), nn.Tanh(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Conv2d(12, 24, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), *_head(24))


def convnext() -> nn.Module:
    """Return one of depthwise 7x7 layers with GELU and group normalisation."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1, stride=2)]
    for _ in range(3):
        layers += [nn.Conv2d(32, 32, 7, padding=3, groups=32), nn.GroupNorm(1, 32), nn.Conv2d(32, 64, 1), nn.GELU()]
        layers.append(nn.Conv2d(64, 32, 1))
    return nn.Sequential(*layers, *_head(32))


NETWORKS = (plain, deep, normalised, residual, separable, large_kernels, convnext)


def _sgd(rate: float, decay: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)


OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": _sgd(0.01, 0.0),
    "SGD, decay 5e-4": _sgd(0.02, 5e-4),
    "SGD, decay 5e-3": _sgd(0.01, 5e-3),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "Adam, L2 1e-4": lambda parameters: torch.optim.Adam(parameters, lr=2e-3, weight_decay=1e-4),
    "AdamW, decay 0.05": lambda parameters: torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=5e-4),
}

INITIALISATIONS: dict[str, Callable[[torch.Tensor], object]] = {
    "default": lambda weight: weight,
    "He normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "Glorot": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
    "normal 0.1": lambda weight: nn.init.normal_(weight, std=0.1),
}

SCHEDULES = ("constant", "cosine", "warm-up")


class Run(NamedTuple):
    """A training: what is trained, how, and with which seed."""

    network: Callable[[], nn.Module]
    optimiser: str
    initialisation: str
    schedule: str
    seed: int

    def __str__(self) -> str:
        return f"{self.network.__name__}, {self.optimiser}, {self.initialisation}, {self.schedule}, seed {self.seed}"


def healthy_runs(seeds: range) -> Iterator[Run]:
    """Yield 21 runs for each seed: each network three times, optimisers and initialisations in turn."""
    for seed in seeds:
        for number in range(3 * len(NETWORKS)):
            yield Run(
                NETWORKS[number % len(NETWORKS)],
                list(OPTIMISERS)[(number + number // len(NETWORKS) + seed) % len(OPTIMISERS)],
                list(INITIALISATIONS)[(number + 2 * seed) % len(INITIALISATIONS)],
                SCHEDULES[(number // len(NETWORKS) + seed) % len(SCHEDULES)],
                100 * seed + number,
            )


Change = Callable[[nn.Module, int], None]
"""What is done to a network after each step, given the steps so far."""


def train(
    run: Run,
    change: Change | None = None,
    *,
    prepare: Callable[[nn.Module], object] | None = None,
    epochs: int = EPOCHS,
) -> Result:
    """Train a small network, and return what the monitor said of it."""
    torch.manual_seed(run.seed)
    network = run.network()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            INITIALISATIONS[run.initialisation](module.weight.data)
    fixed = prepare(network) if prepare is not None else None
    parameters = [parameter for parameter in network.parameters() if parameter is not fixed]
    optimizer = OPTIMISERS[run.optimiser](parameters)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(run.schedule, step))
    patterns = nn.functional.interpolate(torch.randn(CLASSES, 3, 6, 6), scale_factor=2, mode="bilinear")
    rows = _Rows()
    monitor, spent, correct = Callback(rows, every=EVERY, budget=None), 0.0, []
    for step in range(epochs * EPOCH):
        labels = torch.randint(0, CLASSES, (BATCH,))
        images = patterns[labels].roll(int(torch.randint(0, 5, ())), dims=-1) + torch.randn(BATCH, 3, 12, 12)
        output = network(images)
        optimizer.zero_grad()
        nn.functional.cross_entropy(output, labels).backward()
        optimizer.step()
        schedule.step()
        if change is not None:
            change(network, step)
        correct.append(float((output.argmax(1) == labels).float().mean()))
        spent += _seconds(lambda: monitor.step(network))
    return Result(monitor, statistics.mean(correct[-20:]), spent * EVERY / (epochs * EPOCH), rows.margins())


class Result(NamedTuple):
    """What came of a training."""

    monitor: Callback
    accuracy: float
    seconds: float
    """Of a measurement."""
    margins: Margins


class Margins(NamedTuple):
    """How near the layers of a run come to an alarm."""

    sparsity: float
    """The largest sparsity."""
    norm: float
    """The smallest norm, compared with the first one and with the layers' median of that."""
    directions: float
    """The fewest directions of a layer of at least 32 filters that had twice as many at first."""
    moved: float
    """The smallest movement between two measurements."""


class _Rows:
    """Keep the rows of a run."""

    def __init__(self) -> None:
        self.measurements: list[list[Row]] = []

    def write(self, rows: Sequence[Row], alarms: Sequence[Alarm]) -> None:
        self.measurements.append(list(rows))

    def close(self) -> None:
        """Do nothing: the rows are in memory."""

    def margins(self) -> Margins:
        first = {row.layer: row for row in self.measurements[0]}
        norms, movements, directions = [], [], [math.inf]
        for rows in self.measurements[1:]:
            shares = [row.norm / first[row.layer].norm for row in rows]
            norms.append(min(shares) / min(1.0, statistics.median(shares)))
            movements.append(min(row.moved for row in rows))
            for row in rows:
                now, before = 10**row.variance_entropy, 10 ** first[row.layer].variance_entropy
                directions += [now] if row.filters >= 32 and now <= before / 2 else []
        sparsity = max(row.sparsity for rows in self.measurements for row in rows)
        return Margins(sparsity, min(norms), min(directions), min(movements))


def _rate(schedule: str, step: int) -> float:
    """Return the share of the learning rate at a step."""
    if schedule == "warm-up":
        return min(1.0, (step + 1) / EPOCH)
    share = step / (EPOCHS * EPOCH)
    return 1.0 if schedule == "constant" else 0.5 * (1 + float(torch.cos(torch.tensor(share * torch.pi))))


def print_healthy(seeds: range) -> None:
    """Print the alarms of healthy runs. There should be none."""
    runs = list(healthy_runs(seeds))
    torch.set_num_threads(1)  # small layers do not gain from more
    alarms, accuracies, costs, margins = [], [], [], []
    for run in runs:
        result = train(run)
        accuracies.append(result.accuracy)
        costs.append(result.seconds)
        margins.append(result.margins)
        alarms += [(str(run), str(alarm)) for alarm in result.monitor.alarms]
    print(f"healthy: {len(alarms)} alarms in {len(runs)} runs of {EPOCHS} epochs of {EPOCH} steps, every {EVERY} steps")
    print(f"  accuracy of the last 20 steps: median {statistics.median(accuracies):.2f}, lowest {min(accuracies):.2f}")
    print(f"  a measurement: {1000 * statistics.median(costs):.1f} ms (median)")
    few, share = min(m.directions for m in margins), min(m.norm for m in margins)
    print(f"  largest sparsity {max(m.sparsity for m in margins):.2f}; fewest directions after losing half: {few:.1f}")
    print(f"  smallest norm {share:.2f} of the first; smallest movement {min(m.moved for m in margins):.0e}")
    for run_name, alarm in alarms:
        print(f"  {run_name}: {alarm}")


# What is planted.


def _target(network: nn.Module) -> nn.Conv2d:
    """Return the layer that is broken: one in the middle, with kernels of more than one weight."""
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    return convs[len(convs) // 2]


def shrink(network: nn.Module, step: int) -> None:
    """Shrink the layer by a fifth at each step, as far too strong a decay does."""
    _target(network).weight.data *= 0.8


def kill_channels(network: nn.Module, step: int) -> None:
    """Let three quarters of its output channels die, a further one each step: their weights are zero from then on."""
    weight = _target(network).weight.data
    weight[: min(step - EPOCH + 1, 3 * len(weight) // 4)] = 0


def collapse(network: nn.Module, step: int) -> None:
    """Pull its filters towards multiples of one of them."""
    weight = _target(network).weight.data
    flat = weight.flatten(2)
    pattern = flat[0, 0] / flat[0, 0].norm()
    flat.copy_(0.9 * flat + 0.1 * (flat @ pattern)[..., None] * pattern)


def cut_off(network: nn.Module, step: int) -> None:
    """Let no gradient reach the layer: from here on its output is not used."""
    if step == EPOCH:
        target = _target(network)
        target.register_forward_hook(lambda module, inputs, output: output.detach())


def zero(network: nn.Module, step: int) -> None:
    """Set its weights to zero."""
    _target(network).weight.data.zero_()


def explode(network: nn.Module, step: int) -> None:
    """Put a NaN into it."""
    _target(network).weight.data[0, 0, 0, 0] = torch.nan


FAULTS: dict[str, Change] = {
    "shrinks": shrink,
    "channels die": kill_channels,
    "filters collapse": collapse,
    "no gradient": cut_off,
    "zeroed": zero,
    "NaN": explode,
}


def print_planted(seeds: range) -> None:
    """Print after how many steps each fault is found that begins with the second epoch, and in which layer."""
    torch.set_num_threads(1)
    for name, fault in FAULTS.items():
        _print_fault(name, [_planted(run, fault, EPOCH) for run in _planted_runs(seeds)])
    _print_fault("not in the optimiser", [_forgotten(run) for run in _planted_runs(seeds)])


def _planted_runs(seeds: range) -> Iterator[Run]:
    for seed in seeds:
        for number, network in enumerate(NETWORKS):
            optimiser = list(OPTIMISERS)[(number + seed) % len(OPTIMISERS)]
            yield Run(network, optimiser, "default", "constant", 1000 + 10 * seed + number)


class Finding(NamedTuple):
    """After how many steps the broken layer raised an alarm (None: never), its kind, and alarms of other layers."""

    steps: int | None
    kind: str
    others: list[str]


def _planted(run: Run, fault: Change, begin: int) -> Finding:
    def change(network: nn.Module, step: int) -> None:
        if step >= begin:
            fault(network, step)

    return _finding(run, train(run, change, epochs=2), begin)


def _forgotten(run: Run) -> Finding:
    return _finding(run, train(run, prepare=lambda network: _target(network).weight, epochs=1), 0)


def _finding(run: Run, result: Result, begin: int) -> Finding:
    network = run.network()
    target = next(f"{name}.weight" for name, module in network.named_modules() if module is _target(network))
    own = [alarm for alarm in result.monitor.alarms if alarm.layer == target and alarm.step > begin]
    others = [str(alarm) for alarm in result.monitor.alarms if alarm.layer != target]
    return Finding(own[0].step - begin if own else None, own[0].kind if own else "", others)


def _print_fault(name: str, findings: list[Finding]) -> None:
    steps = [finding.steps for finding in findings if finding.steps is not None]
    within = sum(step <= EPOCH for step in steps)
    kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(f.kind or "missed" for f in findings).items())
    after = f"after {statistics.median(steps):.0f} steps (median; at most {max(steps)})" if steps else "never"
    others = sum(bool(finding.others) for finding in findings)
    print(f"planted, {name}: {within} of {len(findings)} within an epoch, {after}; {kinds}; {others} runs with others")


if __name__ == "__main__":
    main()
