"""docs/REDIS_KEYSPACE.md as data, and what real keys break of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec

from arb_ray.adapters.storage import redis_keys
from arb_ray.adapters.storage.redis_keys import StateKey
from arb_ray.engine.state_document import document_flaw

PAGE = Path(__file__).resolve().parents[1] / "docs" / "REDIS_KEYSPACE.md"


class Row(msgspec.Struct):
    """One key of the page."""

    category: str
    redis_type: str
    ttl_s: float
    size_max_bytes: int
    fields: set[str]


def documented_keys() -> list[Row]:
    """Read the table of keys, and the fields of each key's ``data``."""
    text = PAGE.read_text()
    rows = []
    for line in text.split("<!-- keys -->")[1].strip().splitlines()[2:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        category = re.fullmatch(
            r"`arb:v1:\{env\}:state:\{session_id\}:(\w+)`", cells[0]
        )[1]  # fmt: skip
        rows.append(
            Row(
                category,
                cells[1],
                float(cells[2].split()[0].replace(",", "")),
                int(cells[3].split()[0]) * 1024,
                fields_of(text, category),
            )
        )
    return rows


def fields_of(text: str, category: str) -> set[str]:
    """Read the list of fields below a category's heading."""
    section = text.split(f"\n### `{category}`\n")[1].split("\n#", maxsplit=1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def undocumented(keys: dict[str, tuple[str, float, bytes]]) -> list[str]:
    """Compare keys (type, seconds to live, value) with the page; return what differs."""
    rows = {row.category: row for row in documented_keys()}
    wrong = []
    for key, (kind, ttl_s, value) in keys.items():
        parsed = redis_keys.parse(key)
        row = rows.get(parsed.category) if isinstance(parsed, StateKey) else None
        if row is None:
            wrong.append(f"{key} is not on the page")
            continue
        document = json.loads(value)
        if flaw := document_flaw(value):
            wrong.append(f"{key}: {flaw}")
        found = fields_in(parsed.category, document["data"])
        if found - row.fields or (found and row.fields - found):
            wrong.append(f"{key} and its page differ in {sorted(found ^ row.fields)}")
        if kind != row.redis_type or not row.ttl_s - 60 < ttl_s <= row.ttl_s:
            wrong.append(f"{key} is a {kind} with {ttl_s} s to live")
        if len(value) > row.size_max_bytes:
            wrong.append(f"{key} has {len(value)} bytes")
    return wrong


def fields_in(category: str, data: dict) -> set[str]:
    """Return the fields of a document; those of one symbol, where it is by symbol."""
    if category in ("positions", "metrics"):
        return set().union(*(row.keys() for row in data.values()))
    return set(data)
