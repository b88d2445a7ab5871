"""Super-resolution of volumes, in tiles and parts, and their export."""
