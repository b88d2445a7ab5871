"""Makes links of what pages mention as code: functions of microsr that docs/api.md describes, and settings.

`training.losses.downsample_loss` and `train.batch_size` are plain code on GitHub and links on the site, without markup
of their own.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode


class Mentions(SphinxPostTransform):
    """Wraps each literal that names a documented object in a reference to it."""

    default_priority = 400

    def run(self, **_) -> None:
        """Of one page."""
        objects = self.env.get_domain("py").objects
        settings = {
            name: place for (kind, name), place in self.env.get_domain("std").objects.items() if kind == "setting"
        }
        for literal in list(self.document.findall(nodes.literal)):
            text = literal.astext()
            if isinstance(literal.parent, nodes.reference):
                continue
            full = f"microsr.{text.removeprefix('microsr.').removesuffix('()')}"
            if full in objects:
                page, target = objects[full].docname, objects[full].node_id
            elif text in settings:
                page, target = settings[text]
            else:
                continue
            if page != self.env.docname:
                builder = self.app.builder
                literal.replace_self(make_refnode(builder, self.env.docname, page, target, literal.deepcopy()))


def setup(app: Sphinx) -> dict:
    """Register the transform."""
    app.add_post_transform(Mentions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
