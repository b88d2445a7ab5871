"""Compound files (OLE), as [MS-CFB] describes version 3: sectors of 512 bytes, small streams in the mini stream."""

import itertools
import struct

FREE, END, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
SECTOR, MINI, CUTOFF = 512, 64, 4096


def compound(streams: dict[str, bytes]) -> bytes:
    """A file with these streams, each "storage/name"."""
    sectors: list[bytes] = []
    fat: list[int] = []
    small, mini_fat = b"", []

    def lay(content: bytes) -> int:
        """Content into sectors of its own; the first of them."""
        first, parts = len(sectors), [content[i : i + SECTOR] for i in range(0, len(content), SECTOR)]
        for n, part in enumerate(parts):
            sectors.append(part.ljust(SECTOR, b"\0"))
            fat.append(first + n + 1 if n + 1 < len(parts) else END)
        return first if parts else END

    entries: list[dict] = [{"name": "Root Entry", "kind": 5, "children": []}]
    storages: dict[str, int] = {}
    for path, content in streams.items():
        storage, name = path.split("/")
        if storage not in storages:
            storages[storage] = len(entries)
            entries[0]["children"].append(len(entries))
            entries.append({"name": storage, "kind": 1, "children": []})
        if len(content) >= CUTOFF:
            start = lay(content)
        else:
            parts = max(1, -(-len(content) // MINI))
            start = len(small) // MINI
            small += content.ljust(parts * MINI, b"\0")
            mini_fat += [start + n + 1 for n in range(parts - 1)] + [END]
        entries[storages[storage]]["children"].append(len(entries))
        entries.append({"name": name, "kind": 2, "children": [], "start": start, "size": len(content)})
    entries[0] |= {"start": lay(small), "size": len(small)}
    mini = lay(struct.pack(f"<{len(mini_fat)}I", *mini_fat).ljust(-(-len(mini_fat) * 4 // SECTOR) * SECTOR, b"\xff"))
    directory = b""
    right, child = [FREE] * len(entries), [FREE] * len(entries)
    for n, entry in enumerate(
        entries
    ):  # children as a chain to the right, in the order of names by length, then letters
        order = sorted(entry["children"], key=lambda c: (len(entries[c]["name"]), entries[c]["name"].upper()))
        child[n] = order[0] if order else FREE
        for one, following in itertools.pairwise(order):
            right[one] = following
    for n, entry in enumerate(entries):
        name = entry["name"].encode("utf-16-le") + b"\0\0"
        directory += name.ljust(64, b"\0") + struct.pack(
            "<HBB3I", len(name), entry["kind"], 1, FREE, right[n], child[n]
        )
        directory += bytes(36) + struct.pack("<IQ", entry.get("start", 0), entry.get("size", 0))
    first_of_directory = lay(directory.ljust(-(-len(directory) // SECTOR) * SECTOR, b"\0"))
    number = 1
    while number * (SECTOR // 4) < len(fat) + number:
        number += 1
    places = [len(sectors) + n for n in range(number)]
    fat += [FAT] * number
    table = struct.pack(f"<{len(fat)}I", *fat).ljust(number * SECTOR, b"\xff")
    assert number <= 109, "the header has no room for more"
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<5H", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    head += struct.pack("<9I", 0, number, first_of_directory, 0, CUTOFF, mini, -(-len(mini_fat) * 4 // SECTOR), END, 0)
    return head + struct.pack("<109I", *places, *[FREE] * (109 - number)) + b"".join(sectors) + table
