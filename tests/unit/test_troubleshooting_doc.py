"""docs/TROUBLESHOOTING.md: quoted sentences are the program's, reasons and settings exist."""

import ast
import re
from pathlib import Path

from arb_ray.adapters.telemetry.events import EVENTS
from arb_ray.app.settings import known_keys
from arb_ray.domain.opportunity import Refusal

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text()
GAP = "…"
PIECE_LENGTH_MIN = 8


def literals():
    """Every text in the source, with a gap where an f-string puts a value in."""
    for path in (ROOT / "arb_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else GAP for p in node.values)
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    yield (ROOT / "Makefile").read_text()


def pieces_of(sentence):
    """Cut a sentence where the program puts it together: at values, full stops and colons."""
    parts = (part.strip(" .") for part in re.split(r"…|\. |: |[()]", sentence))
    return [part for part in parts if len(part) >= PIECE_LENGTH_MIN]


def unknown_pieces(sentences):
    source = "\n".join(literals())
    return [(s, piece) for s in sentences for piece in pieces_of(s) if piece not in source]


def quotes():
    return re.findall(r"^> (.+)$", PAGE, re.MULTILINE)


def test_every_quoted_sentence_is_in_the_source():
    sentences = quotes()
    assert len(sentences) > 10
    assert all(pieces_of(sentence) for sentence in sentences)
    assert unknown_pieces(sentences) == []


def test_a_sentence_that_nobody_says_is_found_out():
    assert unknown_pieces(["port … is taken by a ghost"])


def test_every_reason_against_an_entry_is_explained_once():
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    told = [reason for cell in cells for reason in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(Refusal)


def test_every_setting_and_event_that_is_named_exists():
    keys = {key for key, _ in known_keys()}
    sections = {key.split(".")[0] for key in keys if "." in key}
    named = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", PAGE)
    ours = {name for name in named if name.split(".")[0] in sections}
    assert len(ours) > 10
    assert ours <= keys
    events = re.findall(r"--event (\w+)", PAGE)
    assert len(events) > 3
    assert set(events) <= set(EVENTS)
