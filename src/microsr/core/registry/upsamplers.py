"""Ways of super-resolving that need no model, each a class of `microsr.inference.upsamplers.Upsampler`
that is called with the scale, by what
`methods.<name>.kind` may be.
"""

UPSAMPLERS = {
    "bicubic": "microsr.inference.upsamplers:Bicubic",
    "nearest": "microsr.inference.upsamplers:Nearest",
}
