"""Convolutions as a training computes them in float32 on a CPU without AVX-512, where oneDNN's own are slow in
channels-last order.

There, measured in shares of the rate of matrix products (docs/training.md): forwards and backwards to the input 0.9 to
1.0 in this order as in the other; the gradient of the weights 0.3 to 0.6 for images of 128 and 256 pixels, for 256
channels and for strides, for want of a kernel; both gradients of a layer of one input channel 0.05. So those are
computed by matrix products here, strip by strip, and a 3x3 convolution of many channels by the minimal filtering of
Winograd, which takes 4 products of 9. All give what PyTorch's give, but for rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

STRIP_ROWS = 16
"""Rows of an image whose gradients a core's cache holds."""
TILES = 256
"""Tiles of 2 x 2 outputs that are transformed at once."""
WIDE = 128
"""Channels, in and out, from which minimal filtering is faster, as its transformations cost the same for each; and
products of windows for images of any size."""
LARGE = 128
"""Rows from which an image's gradient of the weights is faster as matrix products; of one channel, half as many."""

MANY = 48
"""Channels from which the gradient of the weights is faster as products of windows, where the convolution is
strided.
"""


def _twice(matrix: list[list[float]]) -> Tensor:
    """What a matrix does to rows and then to columns, as one matrix."""
    return torch.kron(torch.tensor(matrix), torch.tensor(matrix))


_INPUT = _twice([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_WEIGHT = _twice([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_OUTPUT = _twice([[1.0, 1, 1, 0], [0, 1, -1, -1]])
"""F(2x2, 3x3) (Lavin and Gray 2016, section 4.1)."""


class Conv2d(nn.Conv2d):
    """PyTorch's convolution, faster in training where this module's ways are."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(x, weight, bias, self.padding[0], self.stride[0])


class ConvTranspose2d(nn.ConvTranspose2d):
    """PyTorch's transposed convolution, faster in training where this module's ways are."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """See torch.nn.ConvTranspose2d."""
        if output_size is None and _suits(x, self.weight) and min(self.weight.shape[:2]) >= MANY:
            sizes = self.padding[0], self.stride[0], self.output_padding[0]
            return _Transposed.apply(x, self.weight, self.bias, *sizes)
        return super().forward(x, output_size)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int = 0, stride: int = 1) -> Tensor:
    """As torch.nn.functional.conv2d: [batch, inputs, h, w] to [batch, outputs, (h + 2 padding - k) // stride + 1,
    ...].
    """
    if _suits(x, weight):
        outputs, inputs = weight.shape[:2]
        least, rows = min(outputs, inputs), x.shape[2]
        wide = (stride, padding) == (1, 0) and least >= WIDE and _is_of_tiles(x, weight)
        if inputs == 1:
            faster = rows >= LARGE // 2
        else:
            faster = weight.requires_grad and (least >= WIDE or (rows >= LARGE and (stride == 1 or outputs >= MANY)))
        if wide or faster:
            return _Convolution.apply(x, weight, bias, padding, stride, wide)
    return functional.conv2d(x, weight, bias, stride, padding)


def _suits(x: Tensor, weight: Tensor) -> bool:
    """Whether there will be gradients, and CPU, precision and order are those that the ways of this module are for."""
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        return False
    if x.device.type != "cpu" or x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"):
        return False
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and x.is_contiguous(memory_format=torch.channels_last)


def _is_of_tiles(x: Tensor, weight: Tensor) -> bool:
    """Whether minimal filtering can be used: the kernel is 3x3, and the outputs are whole tiles."""
    return weight.shape[2:] == (3, 3) and not any(n % 2 for n in x.shape[2:])


class _Convolution(torch.autograd.Function):
    """A convolution in channels-last order; wide: by minimal filtering."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, stride: int, wide: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.stride, ctx.wide = padding, stride, wide
        if wide:
            y = winograd(x, _transform(weight))
            return y if bias is None else y.add_(bias[:, None, None])
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        inputs, k, sizes = weight.shape[1], weight.shape[2], (ctx.padding, ctx.stride)
        if torch.is_grad_enabled():  # someone will differentiate this, too
            return *_pytorchs(gradient, x, weight, *sizes, (to_x, to_weight, to_bias)), None, None, None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = None
        if to_x and ctx.wide:
            of_x = winograd(functional.pad(gradient, (k - 1,) * 4), _transform(weight.flip(2, 3).transpose(0, 1)))
        elif to_x and inputs == 1:
            of_x = one_channels_gradient(gradient, weight, x.shape[2:], *sizes)
        elif to_x:
            of_x = _pytorchs(gradient, x, weight, *sizes, (True, False, False))[0]
        if to_weight and ctx.wide:
            of_weight = winograd_weight_gradient(gradient, x)
        elif to_weight and ctx.stride == 1 and inputs < WIDE and (inputs > 1 or k < 5):
            of_weight = weight_gradient(gradient, x, k, ctx.padding)
        elif to_weight:
            of_weight = gradient_by_windows(gradient, x, k, *sizes)
        return of_x, of_weight, gradient.sum((0, 2, 3)) if to_bias else None, None, None, None


class _Transposed(torch.autograd.Function):
    """A transposed convolution in channels-last order."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, stride: int, more: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = padding, stride, more
        return functional.conv_transpose2d(x, weight, bias, stride, padding, more)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted, (padding, stride, more) = ctx.needs_input_grad[:3], ctx.sizes
        of_weight = None
        if wanted[1] and not torch.is_grad_enabled():
            gradient = gradient.contiguous(memory_format=torch.channels_last)
            of_weight, wanted = (
                gradient_by_windows(x, gradient, weight.shape[2], padding, stride),
                (wanted[0], False, wanted[2]),
            )
        found = _pytorchs(gradient, x, weight, padding, stride, wanted, transposed=True, more=more)
        return found[0], found[1] if of_weight is None else of_weight, found[2], None, None, None


def _pytorchs(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    padding: int,
    stride: int,
    wanted: tuple[bool, bool, bool],
    transposed: bool = False,
    more: int = 0,
) -> tuple[Tensor | None, ...]:
    """Gradients of the input, the weight and the bias."""
    outputs = weight.shape[1 if transposed else 0]
    sizes = [outputs], [stride] * 2, [padding] * 2, [1, 1], transposed, [more] * 2, 1
    return torch.ops.aten.convolution_backward(gradient, x, weight, *sizes, wanted)


def gradient_by_windows(coarse: Tensor, fine: Tensor, k: int, padding: int, stride: int) -> Tensor:
    """Of the weights of a convolution of k x k from `fine` to `coarse`: [channels of coarse, channels of fine, k, k].

    coarse: gradient of the convolution's output; of a transposed one, its input. fine: the other one. [batch, channels,
    h, w].
    """
    channels, rows, columns = coarse.shape[1:]
    inputs = fine.shape[1]
    found = coarse.new_zeros(channels, k * k * inputs)
    if padding:
        fine = functional.pad(fine, (padding,) * 4)
    for arriving, image in zip(coarse.permute(0, 2, 3, 1), fine.permute(0, 2, 3, 1), strict=True):
        by_row, by_column, by_channel = image.stride()
        strides = stride * by_row, stride * by_column, by_row, by_column, by_channel
        for first in range(0, rows, STRIP_ROWS):
            some, below = arriving[first : first + STRIP_ROWS], image[stride * first :]
            windows = below.as_strided((len(some), columns, k, k, inputs), strides, below.storage_offset())
            found.addmm_(some.reshape(-1, channels).T, windows.reshape(-1, k * k * inputs))
    return found.view(channels, k, k, inputs).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def one_channels_gradient(gradient: Tensor, weight: Tensor, size: tuple[int, int], padding: int, stride: int) -> Tensor:
    """Of the input [batch, 1, h, w] of `size` of a convolution, from that of its output [batch, outputs, h', w']."""
    by_tap, found = weight.flatten(1).T, []
    for arriving in gradient.permute(0, 2, 3, 1):
        pixels = arriving.reshape(-1, arriving.shape[2])
        found.append(functional.fold((by_tap @ pixels.T)[None], size, weight.shape[2], 1, padding, stride))
    return torch.cat(found)


def weight_gradient(gradient: Tensor, x: Tensor, k: int, padding: int) -> Tensor:
    """Of a convolution of stride 1 and a kernel of k x k: [outputs, inputs, k, k].

    gradient: of the output [batch, outputs, h, w]. x: the input [batch, inputs, h', w']. Both in channels-last order.
    """
    outputs, rows, columns = gradient.shape[1:]
    inputs, height, width = x.shape[1:]
    found = x.new_zeros(k, k * outputs, inputs)
    # Beside each pixel of the input, the gradients of the k outputs of its row that it is part of; 0 beyond the image.
    strip = x.new_zeros(min(STRIP_ROWS, rows), width, k, outputs)
    for image, arriving in zip(x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1), strict=True):
        for first in range(0, rows, STRIP_ROWS):
            count = min(STRIP_ROWS, rows - first)
            for b in range(k):
                shift = b - padding  # of the input's column against the output's
                start, stop = max(0, -shift), min(columns, width - shift)
                strip[:count, start + shift : stop + shift, b] = arriving[first : first + count, start:stop]
            for a in range(k):
                above = first + a - padding
                skip, end = max(0, -above), min(count, height - above)
                if skip < end:
                    beside = strip[skip:end].view(-1, k * outputs)
                    found[a].addmm_(beside.T, image[above + skip : above + end].reshape(-1, inputs))
    return found.view(k, k, outputs, inputs).permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def _transform(weight: Tensor) -> Tensor:
    """[outputs, inputs, 3, 3] to [16, inputs, outputs]."""
    outputs, inputs = weight.shape[:2]
    return (_WEIGHT.to(weight.dtype) @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(16, inputs, outputs)


def _strips(x: Tensor) -> list[tuple[int, slice]]:
    """The number of an image and some of its rows of tiles, one after the other."""
    down, across = ((n - 2) // 2 for n in x.shape[2:])
    step = max(1, TILES // across)
    return [(n, slice(k, min(k + step, down))) for n in range(len(x)) for k in range(0, down, step)]


def _tiles(x: Tensor, number: int, rows: slice) -> Tensor:
    """The transformed 4 x 4 inputs of each 2 x 2 outputs: [16, tiles, channels]."""
    image = x[number].permute(1, 2, 0)[2 * rows.start :]
    down, across, channels = rows.stop - rows.start, (x.shape[3] - 2) // 2, x.shape[1]
    by_row, by_column, by_channel = image.stride()
    strides = by_row, by_column, 2 * by_row, 2 * by_column, by_channel
    tiles = image.as_strided((4, 4, down, across, channels), strides, image.storage_offset())
    return (_INPUT.to(x.dtype) @ tiles.reshape(16, -1)).view(16, -1, channels)


def winograd(x: Tensor, transformed: Tensor) -> Tensor:
    """A 3x3 convolution without padding: [batch, inputs, h, w] of even size to [batch, outputs, h - 2, w - 2]."""
    batch, _, rows, columns = x.shape
    outputs = transformed.shape[2]
    y = x.new_empty(batch, rows - 2, columns - 2, outputs)
    by_tile = y.view(batch, (rows - 2) // 2, 2, (columns - 2) // 2, 2, outputs)
    back = _OUTPUT.to(x.dtype)
    for number, rows in _strips(x):
        products = torch.bmm(_tiles(x, number, rows), transformed)
        into = by_tile[number, rows]
        made = (back @ products.view(16, -1)).view(2, 2, into.shape[0], into.shape[2], outputs)
        into.copy_(made.permute(2, 0, 3, 1, 4))
    return y.permute(0, 3, 1, 2)


def winograd_weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Of `winograd`: [outputs, inputs, 3, 3]."""
    batch, outputs, rows, columns = gradient.shape
    by_tile = gradient.permute(0, 2, 3, 1).view(batch, rows // 2, 2, columns // 2, 2, outputs)
    found, spread = x.new_zeros(16, x.shape[1], outputs), _OUTPUT.to(x.dtype).T
    for number, rows in _strips(x):
        arriving = (spread @ by_tile[number, rows].permute(1, 3, 0, 2, 4).reshape(4, -1)).view(16, -1, outputs)
        found.baddbmm_(_tiles(x, number, rows).transpose(1, 2), arriving)
    whole = (_WEIGHT.to(x.dtype).T @ found.view(16, -1)).view(3, 3, x.shape[1], outputs)
    return whole.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
