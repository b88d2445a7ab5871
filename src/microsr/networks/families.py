"""Generators and discriminators, in families behind one key: `resnet` (the paper's class), `efficient`, `compact`, and
any in a module of its own (`core.registry.families`, docs/extending.md).

G1 takes clinical patches [batch, 1, h, w] to uCT scale [batch, 1, scale * h, scale * w], G2 the reverse; both in [-1,
1]; `scale` is a power of two, which a family's networks are made for. A generator may take noise: one random plane at
each of its `noise_scales`, given from outside so that a result never depends on hidden state and a slice's noise does
not depend on how it is cut into tiles.

G1 works in two parts, so that a slice can be magnified in tiles without computing much twice: `trunk` at the clinical
size, which is cheap to hold for a whole slice, and `magnify`, which takes tiles of it. `trunk_halo` and `magnify_halo`
are the distances, in clinical pixels, beyond which a pixel has no influence on each; `halo` is not less than their sum.

A G1 may see the neighbouring slices of a scan: A then is [batch, slices, h, w], the one to magnify in the middle, which
`trunk` takes whole; what else is made of A is made of that one alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from microsr.core.errors import UserError
from microsr.core.registry import load_thing
from microsr.core.registry.families import FAMILIES
from microsr.networks.convolution import Conv2d, ConvTranspose2d
from microsr.networks.layers import (
    DoublingConv,
    InstanceNorm,
    NoiseConv,
    ReflectPad,
    average_pool,
    bicubic_upsample,
    fold,
)

Sides = tuple[bool, bool, bool, bool]
"""Of a tile: top, bottom, left, right."""
NO_SIDE = (False, False, False, False)


class Networks(NamedTuple):
    """The four networks of Fig. 1."""

    g1: nn.Module
    g2: nn.Module
    d1: nn.Module
    d2: nn.Module


class Magnifying(Protocol):
    """What a G1 must offer, beside being an nn.Module: it is `magnify(a, trunk(a), noise)`."""

    scale: int
    """Pixels of A_SR along one of A."""
    noise_scales: Sequence[int]
    """Of each random plane that it takes, the size in clinical pixels' sizes; nothing is drawn inside."""
    trunk_halo: int
    """Clinical pixels beyond which nothing has an influence on `trunk`."""
    magnify_halo: int
    """Clinical pixels beyond which nothing has an influence on `magnify`."""
    halo: int
    """Clinical pixels beyond which nothing has an influence on the whole; not less than the sum of the two."""

    def trunk(self, a: Tensor) -> Tensor:
        """A [batch, 1 or slices, h, w] to features [batch, channels, h, w]."""
        ...

    def magnify(self, a: Tensor, features: Tensor, noise: Sequence[Tensor] = (), sides: Sides = NO_SIDE) -> Tensor:
        """A, features and noise of a tile, with a halo on `sides`, to its A_SR [batch, 1, scale * h, scale * w]
        without the halo, in [-1, 1].
        """
        ...

    def __call__(self, a: Tensor, noise: Sequence[Tensor] = ()) -> Tensor:
        """A [batch, 1 or slices, h, w] to A_SR [batch, 1, scale * h, scale * w]; both in [-1, 1]."""
        ...

    def fix(self) -> None:
        """Take the weights for final, for speed; thereafter it can be neither trained nor saved."""
        ...


class Sampling(Magnifying, Protocol):
    """What a G1 offers whose draws share all that does not hang on the noise: it is `finish(share(...), ...)`."""

    def share(self, a: Tensor, features: Tensor, sides: Sides = NO_SIDE) -> list[Tensor]:
        """What `magnify` makes of A and features of a tile before the noise comes in: tensors [batch, ...]."""
        ...

    def finish(self, shared: Sequence[Tensor], noise: Sequence[Tensor], sides: Sides = NO_SIDE) -> Tensor:
        """What was shared and the noise of a tile to its A_SR, as `magnify` does."""
        ...


def _as_made(nets: Networks) -> None:
    """The first weights are PyTorch's, or the networks' own."""


class Family(NamedTuple):
    """How the networks of a family are made; what each G1 must offer: `Magnifying`."""

    g1: Callable[..., nn.Module]
    """Takes the scale, and where `neighbours` is true the keyword `slices`."""
    g2: Callable[[int], nn.Module]
    """Takes the scale."""
    discriminator: Callable[[int], nn.Module]
    """Takes the number of stride-2 layers."""
    spectral_norm: bool
    """Whether the discriminators are spectrally normalised (Miyato et al. 2018) unless told otherwise."""
    initialise: Callable[[Networks], None] = _as_made
    """Gives new networks their first weights."""
    sampler: Callable[..., nn.Module] | None = None
    """Takes what `g1` takes. Makes the G1 of methods of which many draws are wanted (`Sampling`); None: `g1` draws
    them.
    """
    neighbours: bool = False
    """Whether its G1 can see the neighbouring slices of a scan."""


def build(network: str, clinical_size: int, micro_size: int, spectral: bool | None = None, slices: int = 1) -> Networks:
    """The networks of a family, for patches of the given sizes (pixels along a side), freshly initialised; their scale
    is the ratio of the sizes.

    spectral: whether the discriminators are spectrally normalised; None: as the family has it. slices: that G1 sees.
    """
    family = family_of(network)
    sizes, scale = (micro_size, clinical_size), micro_size // clinical_size
    nets = Networks(
        build_g1(network, scale, slices=slices),
        family.g2(scale),
        *(family.discriminator(_depth(size)) for size in sizes),
    )
    family.initialise(nets)
    if family.spectral_norm if spectral is None else spectral:
        for module in itertools.chain(nets.d1.modules(), nets.d2.modules()):
            if isinstance(module, nn.Conv2d):
                spectral_norm(module)
    return nets


def family_of(network: str) -> Family:
    """How the networks of a family are made.

    Raises
    ------
    KeyError
        There is no such family.
    """
    return load_thing(FAMILIES[network])


def build_g1(network: str, scale: int, sampler: bool = False, slices: int = 1) -> nn.Module:
    """G1 of a family for a scale, or where it has one its G1 for many draws, with weights that wait for those of a
    file. slices: of a scan that it sees.

    Raises
    ------
    KeyError
        There is no such family.
    UserError
        It cannot see so many slices.
    """
    family = family_of(network)
    make = (sampler and family.sampler) or family.g1
    if slices == 1:
        return make(scale)
    if not family.neighbours:
        raise UserError(
            f"network {network} sees single slices; set methods.<name>.slices to 1, or take another network"
        )
    return make(scale, slices=slices)


def new_g1(network: str, clinical_size: int, micro_size: int, sampler: bool = False, slices: int = 1) -> nn.Module:
    """The same with its first weights, as `build` gives them."""
    if sampler and family_of(network).sampler:
        return build_g1(network, micro_size // clinical_size, sampler, slices)
    return build(network, clinical_size, micro_size, slices=slices).g1


def own_slice(a: Tensor) -> Tensor:
    """The middle one of the slices of A [batch, slices, h, w]: [batch, 1, h, w]."""
    middle = a.shape[1] // 2
    return a[:, middle : middle + 1]


def doublings(scale: int) -> int:
    """How often a side is doubled to be `scale`, a power of two, times as long."""
    return scale.bit_length() - 1


def _widths(widths: Sequence[Any], number: int) -> tuple[Any, ...]:
    """The first `number` of some widths, the last of them as often as is needed."""
    return (*widths[:number], *[widths[-1]] * (number - len(widths)))


def _depth(size: int) -> int:
    """Stride-2 layers of a discriminator: CycleGAN's 3, fewer where a patch would shrink below 2 x 2 verdicts."""
    return max(1, min(3, size.bit_length() - 3))


def draw_noise(
    scales: Sequence[int], batch: int, size: tuple[int, int], generator: torch.Generator, device: torch.device | str
) -> list[Tensor]:
    """Standard normal planes [batch, 1, scale * rows, scale * columns], one a scale, drawn on the generator's
    device.
    """
    shapes = [(batch, 1, scale * size[0], scale * size[1]) for scale in scales]
    return [torch.randn(shape, generator=generator, device=generator.device).to(device) for shape in shapes]


def without_halo(x: Tensor, sides: Sides, width: int, needed: int = 0) -> Tensor:
    """An image [..., h, w] whose halo of `width` pixels on `sides` is cut to what is `needed`."""
    top, bottom, left, right = (side * (width - needed) for side in sides)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [ReflectPad(kernel // 2), Conv2d(inputs, outputs, kernel, stride)]


def _plain_conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    # Reflection costs a copy of every feature map, a third of the compact networks' time on a CPU.
    return Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a skip (He et al. 2016); instance norm as in CycleGAN, or none."""

    def __init__(self, channels: int, norm: bool) -> None:
        super().__init__()
        if norm:
            layers = [*_conv(channels, channels, 3), InstanceNorm(channels), nn.ReLU(True)]
            layers += [*_conv(channels, channels, 3), InstanceNorm(channels)]
        else:
            layers = [_plain_conv(channels, channels, 3), nn.LeakyReLU(0.1, True), _plain_conv(channels, channels, 3)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w], same shape out."""
        return x + self.body(x)


class ResnetG1(nn.Module):
    """7x7 convolution, 9 residual blocks of 64 at the clinical size, a pixel shuffle by 2 for each doubling, 7x7
    convolution, tanh.
    """

    noise_scales = ()
    halo = 25
    magnify_halo = 3

    def __init__(self, scale: int, width: int = 64, blocks: int = 9, slices: int = 1) -> None:
        super().__init__()
        self.scale, self.trunk_halo = scale, 3 + 2 * blocks
        layers = [*_conv(slices, width, 7), InstanceNorm(width), nn.ReLU(True)]
        layers += [ResidualBlock(width, norm=True) for _ in range(blocks)]
        self._trunk_layers = len(layers)
        inputs = width
        for _ in range(doublings(scale)):
            layers += [*_conv(inputs, width, 3), nn.PixelShuffle(2), InstanceNorm(width // 4), nn.ReLU(True)]
            inputs = width // 4
        self.body = nn.Sequential(*layers, *_conv(inputs, 1, 7), nn.Tanh())

    def forward(self, a: Tensor, noise: Sequence[Tensor] = ()) -> Tensor:
        """A [batch, slices, h, w] to A_SR [batch, 1, scale * h, scale * w]; takes no noise."""
        return self.magnify(own_slice(a), self.trunk(a))

    def fix(self) -> None:
        """Take the weights for final, for speed; thereafter it can be neither trained nor saved."""
        for module in self.modules():
            if isinstance(module, nn.Sequential):
                fold(module)

    def trunk(self, a: Tensor) -> Tensor:
        """A [batch, slices, h, w] to features [batch, width, h, w]."""
        return self.body[: self._trunk_layers](a)

    def magnify(self, a: Tensor, features: Tensor, noise: Sequence[Tensor] = (), sides: Sides = NO_SIDE) -> Tensor:
        """A and features of a tile to its A_SR; see `LightG1.magnify`."""
        x = features
        for layer in self.body[self._trunk_layers :]:
            x = layer(x)
            if isinstance(layer, nn.PixelShuffle):
                x = without_halo(x, sides, 6, 3)
        return without_halo(x, sides, 3)


class ResnetG2(nn.Module):
    """CycleGAN's generator with 9 residual blocks, then stride-2 convolutions to the clinical size, 7x7, tanh."""

    noise_scales = ()

    def __init__(self, scale: int, width: int = 64, blocks: int = 9) -> None:
        super().__init__()

        def layer(channels: int, *convolution: nn.Module) -> list[nn.Module]:
            return [*convolution, InstanceNorm(channels), nn.ReLU(True)]

        def down(channels: int) -> list[nn.Module]:
            return layer(2 * channels, *_conv(channels, 2 * channels, 3, stride=2))

        def up(channels: int) -> list[nn.Module]:
            half = channels // 2
            return layer(half, ConvTranspose2d(channels, half, 3, stride=2, padding=1, output_padding=1))

        self.body = nn.Sequential(
            *layer(width, *_conv(1, width, 7)),
            *down(width),
            *down(2 * width),
            *(ResidualBlock(4 * width, norm=True) for _ in range(blocks)),
            *up(4 * width),
            *up(2 * width),
            *itertools.chain(*(down(width * 2**k) for k in range(doublings(scale)))),
            *_conv(width * scale, 1, 7),
            nn.Tanh(),
        )

    def forward(self, b: Tensor, noise: Sequence[Tensor] = ()) -> Tensor:
        """B [batch, 1, scale * h, scale * w] to B_LR [batch, 1, h, w]; takes no noise."""
        return self.body(b)


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): 4x4 convolutions; with depth 3 each verdict sees 70x70 pixels."""

    def __init__(self, depth: int = 3, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        channels = width
        for stride in [2] * (depth - 1) + [1]:
            layers += [Conv2d(channels, 2 * channels, 4, stride, 1), InstanceNorm(2 * channels, track=False)]
            layers += [nn.LeakyReLU(0.2, True)]
            channels *= 2
        self.body = nn.Sequential(*layers, Conv2d(channels, 1, 4, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 1, h, w] to a map of verdicts, 1 for real."""
        return self.body(image)


class LightG1(nn.Module):
    """Residual blocks at the clinical size, then for each doubling: bilinear interpolation, noise, two convolutions;
    added to bicubic.

    No normalisation and no sub-pixel step, so neither tiles nor a checkerboard can show.
    """

    magnify_halo = 3

    def __init__(self, scale: int, width: int, blocks: int, up: Sequence[int], slices: int = 1) -> None:
        """up: width after each doubling; further ones have the last. slices: of a scan that it sees."""
        super().__init__()
        number = doublings(scale)
        up = _widths(up, number)
        self.scale, self.noise_scales = scale, tuple(2 ** (k + 1) for k in range(number))
        self.halo, self.trunk_halo = 6 + 2 * blocks, 1 + 2 * blocks
        self.head = nn.Sequential(
            _plain_conv(slices, width, 3), *(ResidualBlock(width, norm=False) for _ in range(blocks))
        )
        inputs = (width, *up[:-1])
        self.noisy = nn.ModuleList(NoiseConv(i, o) for i, o in zip(inputs, up, strict=True))
        self.up = nn.ModuleList(_inner_layer(o) for o in up)
        self.tail = _plain_conv(up[-1], 1, 3)

    def forward(self, a: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """A [batch, slices, h, w] and noise at scales 2, 4, ... to A_SR [batch, 1, scale * h, scale * w]."""
        return self.magnify(own_slice(a), self.trunk(a), noise)

    def fix(self) -> None:
        """Take the weights for final, for speed; thereafter it can be neither trained nor saved."""
        for noisy in self.noisy:
            noisy.fix()

    def trunk(self, a: Tensor) -> Tensor:
        """A [batch, slices, h, w] to features [batch, width, h, w]."""
        return self.head(a)

    def magnify(self, a: Tensor, features: Tensor, noise: Sequence[Tensor], sides: Sides = NO_SIDE) -> Tensor:
        """A, features and noise of a tile to its A_SR.

        sides: those on which the arguments hold `magnify_halo` clinical pixels beyond the tile; the result is without
        them. What no longer reaches the tile is left out from doubling to doubling.
        """
        x, halo = features, self.magnify_halo
        border = tuple(not side for side in sides)
        number = len(self.noise_scales)
        layers = zip(self.noisy, self.up, noise, self.noise_scales, strict=True)
        for k, (noisy, stage, plane, scale) in enumerate(layers):
            # A doubling and two convolutions need 3 fine pixels around what is kept, the tail 1.
            needed = min(self.magnify_halo, number - k)
            plane = without_halo(plane, sides, self.magnify_halo * scale, 2 * halo)
            x = without_halo(stage(noisy.double(x, plane, border)), sides, 2 * halo, needed)
            halo = needed
        fine = without_halo(self.tail(x), sides, halo)
        # Real patches end at the window's limits too: beyond them, D1 would tell by the values alone.
        return (
            without_halo(bicubic_upsample(a, self.scale), sides, self.scale * self.magnify_halo) + fine.float()
        ).clamp(-1, 1)


class LightSampler(nn.Module):
    """As `LightG1`, but the noise comes in beside what is computed of A: a draw costs a narrow path alone.

    The wide path has no noise: residual blocks at the clinical size, then for each doubling bilinear interpolation and
    two convolutions. At each doubling the narrow path takes a convolution of the wide one's features, the noise's, and
    what it had doubled; another convolution follows. Both are added to bicubic.
    """

    magnify_halo = 4
    WIDE, NARROW = ((5, 5), (5, 3), (3, 1)), ((4, 3), (4, 2), (2, 1))
    """Of each path, at each of its last three sizes, and at those before as at the first of these: pixels beyond a tile
    that are wanted, and those that are then doubled (or, in the end, convolved to the image).
    """

    def __init__(
        self, scale: int, width: int, blocks: int, up: Sequence[int], drawn: Sequence[int], slices: int = 1
    ) -> None:
        """up: channels of the wide path after each doubling; drawn: those of the narrow one; further ones have
        the last. slices: of a scan that it sees.
        """
        super().__init__()
        number = doublings(scale)
        up, drawn = _widths(up, number), _widths(drawn, number)
        self._around = tuple(_widths(pairs[::-1], number)[::-1] for pairs in (self.WIDE, self.NARROW))
        self.scale, self.noise_scales = scale, tuple(2 ** (k + 1) for k in range(number))
        self.trunk_halo = 1 + 2 * blocks
        self.halo = self.trunk_halo + self.magnify_halo
        self.head = nn.Sequential(
            _plain_conv(slices, width, 3), *(ResidualBlock(width, norm=False) for _ in range(blocks))
        )
        self.wide = nn.ModuleList(DoublingConv(i, o) for i, o in zip((width, *up[:-1]), up, strict=True))
        self.noisy = nn.ModuleList(NoiseConv(i, o) for i, o in zip(up, drawn, strict=True))
        self.narrow = nn.ModuleList(DoublingConv(i, o) for i, o in itertools.pairwise(drawn))
        self.up = nn.ModuleList(_inner_layer(o) for o in up)
        self.drawn = nn.ModuleList(_inner_layer(o) for o in drawn)
        self.tail, self.drawn_tail = _plain_conv(up[-1], 1, 3), _plain_conv(drawn[-1], 1, 3)

    def forward(self, a: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """A [batch, slices, h, w] and noise at scales 2, 4, ... to A_SR [batch, 1, scale * h, scale * w]."""
        return self.magnify(own_slice(a), self.trunk(a), noise)

    def fix(self) -> None:
        """Take the weights for final, for speed; thereafter it can be neither trained nor saved."""
        for doubling in (*self.wide, *self.narrow):
            doubling.fix()

    def trunk(self, a: Tensor) -> Tensor:
        """A [batch, slices, h, w] to features [batch, width, h, w]."""
        return self.head(a)

    def magnify(self, a: Tensor, features: Tensor, noise: Sequence[Tensor], sides: Sides = NO_SIDE) -> Tensor:
        """A, features and noise of a tile to its A_SR; see `LightG1.magnify`."""
        return self.finish(self.share(a, features, sides), noise, sides)

    def share(self, a: Tensor, features: Tensor, sides: Sides = NO_SIDE) -> list[Tensor]:
        """The wide path: the image without what is drawn, and what the narrow path takes at each of its sizes."""
        x, halo, shared = features, self.magnify_halo, []
        border = tuple(not side for side in sides)
        layers = zip(self.wide, self.up, self.noisy, self._around[0], strict=True)
        for wide, stage, noisy, (needed, doubled) in layers:
            x = without_halo(stage(wide.forward_doubled(x, border)), sides, 2 * halo, needed)
            shared.append(without_halo(noisy.of_features(x), sides, 1))
            x, halo = without_halo(x, sides, needed, doubled), doubled
        image = without_halo(self.tail(x), sides, halo).float()
        return [without_halo(bicubic_upsample(a, self.scale), sides, self.scale * self.magnify_halo) + image, *shared]

    def finish(self, shared: Sequence[Tensor], noise: Sequence[Tensor], sides: Sides = NO_SIDE) -> Tensor:
        """The narrow path, added to what was shared."""
        image, *shared = shared
        y, halo, border = None, 0, tuple(not side for side in sides)
        layers = zip(shared, noise, self.noise_scales, self.noisy, self.drawn, self._around[1], strict=True)
        for own, plane, scale, noisy, stage, (needed, doubled) in layers:
            plane = without_halo(plane, sides, self.magnify_halo * scale, needed + 1)
            x = own + without_halo(noisy.of_noise(plane), sides, 1)
            if y is not None:
                x += without_halo(y, sides, 2 * halo, needed)
            y, halo = without_halo(stage(x), sides, needed, doubled), doubled
            if scale != self.scale:
                y = self.narrow[self.noise_scales.index(scale)].forward_doubled(y, border)
        fine = without_halo(self.drawn_tail(y), sides, halo)
        return (image + fine.float()).clamp(-1, 1)


def _inner_layer(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.LeakyReLU(0.1, True), _plain_conv(channels, channels, 3), nn.LeakyReLU(0.1, True))


class LightG2(nn.Module):
    """Stride-2 convolutions and a residual block with noise, added to the average-pooled image."""

    noise_scales = (1,)

    def __init__(self, scale: int, widths: Sequence[int]) -> None:
        """widths: after each halving, the last one at the clinical size; further ones before them have the first."""
        super().__init__()
        self.scale = scale
        widths = _widths(widths[::-1], doublings(scale))[::-1]
        layers: list[nn.Module] = []
        for inputs, outputs in zip((1, *widths[:-1]), widths, strict=True):
            layers += [_plain_conv(inputs, outputs, 5, stride=2), nn.LeakyReLU(0.1, True)]
        self.down = nn.Sequential(*layers)
        self.noisy = NoiseConv(widths[-1], widths[-1])
        self.tail = nn.Sequential(
            nn.LeakyReLU(0.1, True), ResidualBlock(widths[-1], norm=False), _plain_conv(widths[-1], 1, 3)
        )

    def forward(self, b: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """B [batch, 1, scale * h, scale * w] and noise at scale 1 (of the clinical size) to B_LR [batch, 1, h, w]."""
        x = self.tail(self.noisy(self.down(b), noise[0]))
        return average_pool(b.float(), self.scale) + x.float()


class LightDiscriminator(nn.Module):
    """Small PatchGAN without normalisation of features."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for i in range(depth):
            outputs = min(2 * width, width * 2**i)
            layers += [Conv2d(channels, outputs, 4, 2, 1), nn.LeakyReLU(0.2, True)]
            channels = outputs
        layers += [Conv2d(channels, channels, 3, 1, 1), nn.LeakyReLU(0.2, True)]
        self.body = nn.Sequential(*layers, Conv2d(channels, 1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 1, h, w] to a map of verdicts, 1 for real."""
        return self.body(image)


def _cyclegan_init(module: nn.Module) -> None:
    """Weights from N(0, 0.02) (Zhu et al. 2017)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)


def _shuffle_init(module: nn.Module) -> None:
    """Equal weights for the four sub-pixels of each pixel shuffle, so that training starts without a checkerboard
    (Aitken et al. 2017).
    """
    if isinstance(module, nn.Sequential):
        for convolution, following in itertools.pairwise(module):
            if isinstance(following, nn.PixelShuffle):
                weight = convolution.weight.data
                weight.copy_(weight[::4].repeat_interleave(4, dim=0))


def _initialise_resnet(nets: Networks) -> None:
    """CycleGAN's first weights, without a checkerboard in G1."""
    for module in nets:
        module.apply(_cyclegan_init)
    nets.g1.apply(_shuffle_init)


# Arithmetic of a training step, quality and time of the three: docs/training.md.
RESNET = Family(
    ResnetG1, ResnetG2, PatchDiscriminator, spectral_norm=False, initialise=_initialise_resnet, neighbours=True
)
EFFICIENT = Family(
    g1=lambda scale, slices=1: LightG1(scale, slices=slices, width=64, blocks=5, up=(48, 32, 16)),
    g2=lambda scale: LightG2(scale, widths=(16, 32, 48)),
    discriminator=lambda depth: LightDiscriminator(depth, width=48),
    spectral_norm=True,
    sampler=lambda scale, slices=1: LightSampler(
        scale, slices=slices, width=64, blocks=5, up=(48, 32, 16), drawn=(24, 16, 12)
    ),
    neighbours=True,
)
COMPACT = Family(
    g1=lambda scale, slices=1: LightG1(scale, slices=slices, width=32, blocks=3, up=(24, 16, 12)),
    g2=lambda scale: LightG2(scale, widths=(12, 24, 32)),
    discriminator=lambda depth: LightDiscriminator(depth, width=32),
    spectral_norm=True,
    sampler=lambda scale, slices=1: LightSampler(
        scale, slices=slices, width=32, blocks=3, up=(24, 16, 12), drawn=(16, 12, 8)
    ),
    neighbours=True,
)
