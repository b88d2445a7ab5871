"""Ways of super-resolving that need no model, each a `microsr.inference.upsamplers.Upsampler`, by what `upsampler` may
be beside generator.
"""

UPSAMPLERS = {
    "bicubic": "microsr.inference.upsamplers:BICUBIC",
}
