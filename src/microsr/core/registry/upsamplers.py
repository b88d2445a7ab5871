"""Ways of super-resolving that need no model, each a `microsr.inference.upsamplers.Upsampler`, by what
`methods.<name>.kind` may be.
"""

UPSAMPLERS = {
    "bicubic": "microsr.inference.upsamplers:BICUBIC",
    "nearest": "microsr.inference.upsamplers:NEAREST",
}
