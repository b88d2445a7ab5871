"""Layers of the networks, written for how a training uses them: channels last, bfloat16, statistics in float32.

PyTorch's own instance norm and the gradient of its reflection leave channels-last order, and every copy back costs
time.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from microsr.networks.convolution import convolve

EPSILON = 1e-5


def keep_type(tensor: Tensor) -> torch.autocast:
    """A context in which operations on such a tensor keep its type, whatever autocast would make of it."""
    return torch.autocast("cpu" if tensor.is_meta else tensor.device.type, enabled=False)


class _Reflect(torch.autograd.Function):
    """Reflection at the border whose gradient keeps the memory order, and is deterministic on a GPU as well."""

    @staticmethod
    def forward(ctx: FunctionCtx, image: Tensor, width: int) -> Tensor:
        ctx.width = width
        with keep_type(image):  # autocast would reflect in float32
            return functional.pad(image, (width,) * 4, mode="reflect")

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        for axis in (2, 3):
            gradient = _fold(gradient, axis, ctx.width)
        return gradient, None


def _fold(gradient: Tensor, axis: int, width: int) -> Tensor:
    """Take off `width` entries at both ends of an axis and add them where they were reflected from."""
    size = gradient.shape[axis] - 2 * width
    inner = gradient.narrow(axis, width, size).clone(memory_format=torch.preserve_format)
    inner.narrow(axis, 1, width).add_(gradient.narrow(axis, 0, width).flip(axis))
    inner.narrow(axis, size - 1 - width, width).add_(gradient.narrow(axis, size + width, width).flip(axis))
    return inner


def reflect(image: Tensor, width: int) -> Tensor:
    """[batch, channels, h, w] to [batch, channels, h + 2 width, w + 2 width], reflected at the border."""
    return _Reflect.apply(image, width)


class ReflectPad(nn.Module):
    """`reflect` as a layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, image: Tensor) -> Tensor:
        """The image with its border."""
        return reflect(image, self.width)


class InstanceNorm(nn.Module):
    """Each image's channels to mean 0 and variance 1 (Ulyanov et al. 2016), without weights.

    With `track`, it gathers in training the images' statistics; `commit` takes their mean over a whole step into the
    running ones, so that it does not matter how a batch was split into parts or processes. In evaluation mode it then
    normalises by the running statistics: every tile alike, whatever is in it (docs/paper.md). Without, it has no state
    and no such mode. `fixed` leads a training from the one to the other: at once, the network collapses.
    """

    MOMENTUM = 0.1
    fixed = 0.0
    """In training, share of the result that is normalised by the running statistics, 0 to 1."""

    def __init__(self, channels: int, track: bool = True) -> None:
        super().__init__()
        self.channels, self.track = channels, track
        if not track:
            return
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("gathered", torch.zeros(2 * channels + 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w], the same shape and type out; statistics are float32."""
        with keep_type(x):
            if self.track and not self.training:
                return functional.batch_norm(x, self.running_mean, self.running_var, eps=EPSILON)
            # On a CPU, one image at a time is the way that keeps channels last.
            out, mean, variance = _image_by_image(x) if x.device.type == "cpu" else _at_once(x)
            if self.track and self.fixed:
                fixed = functional.batch_norm(x, self.running_mean, self.running_var, eps=EPSILON)
                out = torch.lerp(out, fixed.to(out.dtype), self.fixed)
        if self.track and torch.is_grad_enabled():
            images = torch.full((1,), float(len(x)), device=x.device)
            self.gathered += torch.cat([len(x) * mean, len(x) * variance, images])
        return out

    def commit(self) -> None:
        """Let the running statistics follow the mean of all that was gathered, and begin to gather anew."""
        sums, images = self.gathered[:-1].view(2, -1), self.gathered[-1]
        # Without asking the GPU whether there was anything: with no image the weight is 0.
        weight = self.MOMENTUM * (images > 0)
        self.running_mean.lerp_(sums[0] / images.clamp(min=1), weight)
        self.running_var.lerp_(sums[1] / images.clamp(min=1), weight)
        self.gathered.zero_()


def _image_by_image(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised images, and the images' mean and (unbiased) variance, averaged over the batch, by channel."""
    # A weight in float32, even of ones, makes PyTorch compute and give the statistics in float32 too.
    ones, zeros = torch.ones(x.shape[1]), torch.zeros(x.shape[1])
    done = [torch.native_batch_norm(image, ones, zeros, None, None, True, 0.0, EPSILON) for image in x.split(1)]
    images, means, inverses = zip(*done, strict=True)
    out, mean, inverse = torch.cat(images), torch.stack(means), torch.stack(inverses)
    pixels = x.shape[2] * x.shape[3]
    variance = (inverse.detach() ** -2 - EPSILON) * (pixels / max(pixels - 1, 1))
    return out, mean.detach().mean(0), variance.mean(0)


def _at_once(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `_image_by_image`, by PyTorch's instance norm."""
    mean, variance = torch.zeros(2, x.shape[1], device=x.device)
    out = functional.instance_norm(x, mean, variance, use_input_stats=True, momentum=1.0, eps=EPSILON)
    return out, mean, variance


class DoublingConv(nn.Conv2d):
    """A 3x3 convolution of feature maps, which may double their size first."""

    def __init__(self, inputs: int, outputs: int, planes: int = 0) -> None:
        """planes: further inputs, which are no features: `NoiseConv`."""
        super().__init__(inputs + planes, outputs, 3, padding=1)
        self._features = inputs
        self.register_buffer("_phases", None, persistent=False)

    def of_features(self, x: Tensor) -> Tensor:
        """[batch, inputs, h, w] to [batch, outputs, h, w]."""
        return convolve(x, self.weight[:, : self._features], self.bias, 1)

    def fix(self) -> None:
        """Take the weights for final: `doubled` is then one convolution at the size of what is doubled."""
        # In one dimension: a doubled pixel of each phase, convolved by 3 taps, out of the 3 pixels around it.
        even = [[0.75, 0.25, 0.0], [0.25, 0.75, 0.75], [0.0, 0.0, 0.25]]
        mixed = torch.tensor([even, [row[::-1] for row in even[::-1]]], device=self.weight.device)
        phases = torch.einsum("pay,qbx,oiyx->pqoiab", mixed, mixed, self.weight.detach()[:, : self._features])
        self._phases = phases.flatten(0, 2).contiguous(memory_format=torch.channels_last)

    def forward_doubled(self, x: Tensor, border: tuple[bool, bool, bool, bool]) -> Tensor:
        """As of `bilinear_double(x)`: [batch, inputs, h, w] to [batch, outputs, 2h, 2w].

        border: where exactly (top, bottom, left, right); elsewhere, after `fix`, two pixels along the edge are not
        meant.
        """
        if self._phases is None:
            return self.of_features(bilinear_double(x))
        fine = _interleave(functional.conv2d(x, self._phases, self.bias.repeat(4), padding=1))
        # At the border neither the doubling nor the convolution sees what `padding` says.
        ends = (slice(None, 3), slice(None, 2)), (slice(-3, None), slice(-2, None))
        for number, there in enumerate(border):
            coarse, edge = ends[number % 2]
            if there and number < 2:
                fine[:, :, edge] = self.of_features(bilinear_double(x[:, :, coarse]))[:, :, edge]
            elif there:
                fine[..., edge] = self.of_features(bilinear_double(x[..., coarse]))[..., edge]
        return fine


class NoiseConv(DoublingConv):
    """A 3x3 convolution of feature maps and one plane of noise, as of both put together."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, planes=1)

    @torch.no_grad()
    def strengthen(self, gain: float) -> None:
        """Let the plane count `gain` times as much as before beside the features."""
        self.weight[:, -1] *= gain

    def forward(self, x: Tensor, plane: Tensor) -> Tensor:
        """[batch, inputs, h, w] and [batch, 1, h, w] to [batch, outputs, h, w]."""
        # Put together they would be copied, and an odd number of channels is slow.
        return self.of_features(x) + self.of_noise(plane)

    def of_noise(self, plane: Tensor) -> Tensor:
        """[batch, 1, h, w] to [batch, outputs, h, w]."""
        return functional.conv2d(plane, self.weight[:, -1:], padding=1)

    def double(self, x: Tensor, plane: Tensor, border: tuple[bool, bool, bool, bool]) -> Tensor:
        """As of `bilinear_double(x)` and the plane: [batch, inputs, h, w] and [batch, 1, 2h, 2w] to [batch, outputs,
        2h, 2w]; border: as of `doubled`.
        """
        doubled = self.forward_doubled(x, border)
        return doubled + self.of_noise(plane) if self._phases is None else doubled.add_(self.of_noise(plane))


def _interleave(phases: Tensor) -> Tensor:
    """[batch, 4 * channels, h, w], phase by phase, to [batch, channels, 2h, 2w], in channels-last order."""
    batch, channels, rows, columns = phases.shape
    apart = phases.permute(0, 2, 3, 1).reshape(batch, rows, columns, 2, 2, channels // 4)
    return apart.transpose(2, 3).reshape(batch, 2 * rows, 2 * columns, channels // 4).permute(0, 3, 1, 2)


class PhaseShuffle(nn.PixelShuffle):
    """Pixel shuffle by 2 of channels that come phase by phase; several times as fast where channels are last."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 4 * channels, h, w] to [batch, channels, 2h, 2w]."""
        return _interleave(x)


class OneChannelConv(nn.Module):
    """What a convolution to one channel without padding gives, computed for BLOCK neighbouring pixels of a row at once.

    A convolution takes as long for one output channel as for sixteen.
    """

    BLOCK = 8

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        _, channels, height, width = convolution.weight.shape
        blocks = 1 + -(-(width - 1) // self.BLOCK)
        weight = convolution.weight.new_zeros(self.BLOCK, blocks * self.BLOCK, channels, height)
        for pixel in range(self.BLOCK):
            weight[pixel, pixel : pixel + width] = convolution.weight.detach()[0].permute(2, 0, 1)
        weight = weight.view(self.BLOCK, blocks, self.BLOCK * channels, height).permute(0, 2, 3, 1)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", convolution.bias.detach().repeat(self.BLOCK))
        self._width = width

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w] to [batch, 1, h - height + 1, w - width + 1], of the kernel's size."""
        batch, channels, rows, columns = x.shape
        wanted = columns - self._width + 1
        blocks = -(-wanted // self.BLOCK) + self.weight.shape[3] - 1
        x = functional.pad(x, (0, blocks * self.BLOCK - columns)).permute(0, 2, 3, 1)
        x = x.reshape(batch, rows, blocks, self.BLOCK * channels).permute(0, 3, 1, 2)
        y = functional.conv2d(x, self.weight, self.bias)
        return y.permute(0, 2, 3, 1).reshape(batch, 1, y.shape[2], -1)[..., :wanted]


def fold(layers: nn.Sequential) -> None:
    """Take convolutions and tracked norms for final: the norms become part of the convolutions before them.

    Convolutions to one channel and pixel shuffles are replaced by what is faster. The result in evaluation mode stays
    the same.
    """
    convolution = None
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            convolution = layer
            if layer.out_channels == 1:
                layers[index] = OneChannelConv(layer)
        elif isinstance(layer, InstanceNorm):
            scale = (layer.running_var + EPSILON).rsqrt().repeat(convolution.out_channels // layer.channels)
            mean = layer.running_mean.repeat(convolution.out_channels // layer.channels)
            convolution.weight.data *= scale[:, None, None, None]
            convolution.bias.data = (convolution.bias.data - mean) * scale
            layers[index] = nn.Identity()
        elif isinstance(layer, nn.PixelShuffle):
            order = torch.arange(convolution.out_channels).view(-1, 4).T.flatten()
            convolution.weight.data, convolution.bias.data = (
                convolution.weight.data[order],
                convolution.bias.data[order],
            )
            layers[index] = PhaseShuffle()


class _Double(torch.autograd.Function):
    """Bilinear interpolation to twice the size; its gradient is a convolution, so it is deterministic on a GPU as
    well.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        channels = gradient.shape[1]
        taps = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=gradient.dtype, device=gradient.device)
        weight = torch.outer(taps, taps).expand(channels, 1, 4, 4).contiguous()
        return functional.conv2d(
            functional.pad(gradient, (1,) * 4, mode="replicate"), weight, stride=2, groups=channels
        )


def bilinear_double(x: Tensor) -> Tensor:
    """[batch, channels, h, w] to [batch, channels, 2h, 2w]."""
    return _Double.apply(x)


def _cubic(image: Tensor, scale: int) -> Tensor:
    # Without `antialias`, torch takes a = -3/4, which bends straight ramps; magnified, nothing is filtered by it.
    return functional.interpolate(image, scale_factor=scale, mode="bicubic", antialias=True)


class _Bicubic(torch.autograd.Function):
    """Cubic convolution whose gradient is two matrix products, so it is deterministic on a GPU as well."""

    @staticmethod
    def forward(ctx: FunctionCtx, image: Tensor, scale: int) -> Tensor:
        ctx.scale = scale
        return _cubic(image, scale)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        rows, columns = (_matrix(n // ctx.scale, ctx.scale, gradient.device) for n in gradient.shape[-2:])
        return rows.T @ gradient @ columns, None


@functools.cache
def _matrix(size: int, scale: int, device: torch.device) -> Tensor:
    """What interpolation does to a line: [scale * size, size]."""
    lines = torch.eye(size, device=device).view(size, 1, size, 1).expand(-1, -1, -1, 2)
    return _cubic(lines, scale)[:, 0, :, 0].T.contiguous()


def bicubic_upsample(image: Tensor, scale: int) -> Tensor:
    """Cubic convolution (Keys 1981, a = -1/2) to scale times the size, in float32."""
    return _Bicubic.apply(image.float(), scale)


def nearest_upsample(image: Tensor, scale: int) -> Tensor:
    """g: each pixel repeated scale x scale times (Zheng et al. 2020, l_upsample)."""
    return functional.interpolate(image, scale_factor=scale, mode="nearest")


def average_pool(image: Tensor, scale: int) -> Tensor:
    """f: the mean of each scale x scale block (Zheng et al. 2020, l_downsample)."""
    return functional.avg_pool2d(image, scale)
