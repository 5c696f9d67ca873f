"""Module of scripts/bench.py: the tables that it prints and writes to docs/PERFORMANCE.md."""

import datetime
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from bench_rows import ORDER

KINDS = ("AVX2", "AVX-512", "AVX-512 with AMX")
HEAD = (
    "| row | on all cores, f32 unless named | fastest peer | its time | dualenc | ratio: median (range) "
    "| target | limit |"
)
PEERS_HEAD = "| row | peer | time | ratio: median (range) |"
ALL_PEERS = "All peers, and dualenc's time divided by theirs:"


def spread(ratios: list[float]) -> str:
    around = f" ({min(ratios):.3g} to {max(ratios):.3g})" if len(ratios) > 1 else ""
    return f"**{statistics.median(ratios):.3g}**{around}"


@dataclass
class Line:
    """dualenc beside the fastest peer. `ratios` holds one entry per round."""

    row: str
    title: str
    peer: str
    theirs: str
    ours: str
    ratios: list[float]
    target: str = ""
    limit: str = ""

    def __str__(self) -> str:
        times = [self.theirs, self.ours, spread(self.ratios)]
        return f"| {' | '.join([f'`{self.row}`', self.title, self.peer, *times, self.target, self.limit])} |"


@dataclass
class Peer:
    """One peer of a row: its time and dualenc's share of that time, or why the peer is left out."""

    row: str
    name: str
    time: str = ""
    ratios: list[float] = field(default_factory=list)
    left_out: str = ""

    def __str__(self) -> str:
        time = f"left out: {self.left_out.replace('|', '/')}" if self.left_out else self.time
        ratio = spread(self.ratios).replace("**", "") if self.ratios else ""
        return f"| `{self.row}` | {self.name} | {time} | {ratio} |"


def kind(flags: set[str], machine: str) -> str:
    """What a processor's block is called: its vector units, or the architecture without flags that are known."""
    if "amx_tile" in flags and "avx512f" in flags:
        return KINDS[2]
    if "avx512f" in flags:
        return KINDS[1]
    return KINDS[0] if "avx2" in flags else machine


def marks(kind: str) -> tuple[str, str]:
    return f"<!-- begin: {kind}, written by scripts/bench.sh -->", f"<!-- end: {kind} -->"


def in_order(lines: list[str]) -> list[str]:
    """Lines of one row stay in their order."""
    place = {row: index for index, row in enumerate(ORDER)}
    return sorted(lines, key=lambda line: place.get(row_of(line), len(ORDER)))


def row_of(line: str) -> str:
    return line.split("`")[1] if line.startswith("| `") else ""


def block(kind: str, measured_on: str, lines: list[str], peers: list[str]) -> str:
    begin, end = marks(kind)
    parts = [begin, f"### {kind}", "", f"Measured on {measured_on}.", "", HEAD, "|" + " --- |" * 8, *in_order(lines)]
    if peers:
        parts += ["", ALL_PEERS, "", PEERS_HEAD, "|" + " --- |" * 4, *in_order(peers)]
    return "\n".join([*parts, end])


def write(path: Path, kind: str, lines: list[Line], peers: list[Peer], machine: str, facts: str) -> None:
    """Updates the rows of `lines` and `peers` in the block of this kind of processor.

    Its other rows are kept if machine and versions are the same. Blocks of other kinds are not touched.
    """
    text = path.read_text(encoding="utf-8")
    begin, end = marks(kind)
    new_lines, new_peers = [str(line) for line in lines], [str(peer) for peer in peers]
    measured = {row_of(line) for line in [*new_lines, *new_peers]}
    kept, kept_peers = [], []
    if begin in text:
        before, rest = text.split(begin)
        old, after = rest.split(end)
        if machine in old:
            rows, _, peer_rows = old.partition(ALL_PEERS)
            kept, kept_peers = (
                [line for line in part.splitlines() if row_of(line) and row_of(line) not in measured]
                for part in (rows, peer_rows)
            )
    else:
        # A new block follows the last one.
        ends = list(re.finditer(r"<!-- end: .* -->", text))
        if not ends:
            raise SystemExit(f"error: `{path}` has no block of a processor, which ends with `{end}`")
        before, after = text[: ends[-1].end()] + "\n\n", text[ends[-1].end() :]
    today = datetime.date.today()
    measured_on = f"{machine}; {facts}; last rows of {today.day} {today:%B %Y}"
    path.write_text(
        before + block(kind, measured_on, [*kept, *new_lines], [*kept_peers, *new_peers]) + after, encoding="utf-8"
    )
