"""Turns the names of icons into captions. Used by icons_data.py.

`arrow-left-20-filled` becomes the caption `arrow left` in the style `20-filled`: sizes, style words and the numbers of
variants are removed. A style word that is also an ordinary word (`traffic-light`) is removed only if the set uses it as
a style and draws the rest of the name (`traffic`) in another style too.
"""

import re
from collections import Counter

# Never part of what is drawn.
STYLES = {
    "outline", "outlined", "filled", "rounded", "solid", "duotone", "twotone", "stroke", "linear", "regular", "baseline", "alt",
}
# Style words that are ordinary words too.
AMBIGUOUS = {
    "line", "fill", "bold", "thin", "light", "round", "sharp", "broken", "duo", "tone", "two", "one", "three", "four", "o", "f",
    "mono", "print", "small", "large", "variant",
}
SIZE = re.compile(r"\d+|\d+x\d+|\d+px")
VARIANT = re.compile(r"([a-z]{3,})\d+")
# A word that ends this share of a set's names is a style of the set.
FREQUENT = 0.03


def has_word(caption: str) -> bool:
    """Whether a word of the caption has three letters or more, one of them a vowel."""
    return any(re.search("[aeiouy]", word) for word in re.findall("[a-z]{3,}", caption))


class Names:
    """The captions of one set's names. `prefixes` and `suffixes` are those that the set lists as its styles."""

    def __init__(self, names: list[str], prefixes: list[str], suffixes: list[str]):
        self._prefixes = [prefix for prefix in prefixes if prefix]
        # `outline-sharp`, `20-solid`: certain, unlike `light`.
        self._endings = sorted((f"-{suffix}" for suffix in suffixes if "-" in suffix), key=len, reverse=True)
        listed = {suffix for suffix in suffixes if suffix and "-" not in suffix}
        ends = Counter(name.rsplit("-", 1)[-1] for name in names if "-" in name)
        frequent = {word for word in AMBIGUOUS if ends[word] >= FREQUENT * len(names)}
        self._plain = STYLES | (listed - AMBIGUOUS) | (frequent - listed)
        self._styles = listed & AMBIGUOUS
        # The names without styles, as far as they are certain, and those with several of the uncertain ones.
        certain = [self._certain(name.split("-"))[0] for name in names]
        self._bases = {"-".join(tokens) for tokens in certain}
        found: dict[str, set[str]] = {}
        for tokens in certain:
            if tokens[-1] in self._styles:
                found.setdefault("-".join(tokens[:-1]), set()).add(tokens[-1])
        self._several = {base for base, styles in found.items() if len(styles) > 1}

    def _certain(self, tokens: list[str]) -> tuple[list[str], list[str]]:
        """Removes what is certainly a style, and returns the rest and the styles."""
        name, style = "-".join(tokens), []
        for prefix in self._prefixes:
            if name.startswith(f"{prefix}-"):
                name, style = name.removeprefix(f"{prefix}-"), [prefix]
                break
        for ending in self._endings:
            if name.endswith(ending):
                name, style = name.removesuffix(ending), [*style, ending[1:]]
                break
        tokens = name.split("-")
        while len(tokens) > 1 and (tokens[-1] in self._plain or SIZE.fullmatch(tokens[-1])):
            style.append(tokens.pop())
        return tokens, style

    def split(self, name: str) -> tuple[str, str]:
        """Returns the caption, in lower case, and the style, such as `filled` or ``."""
        tokens, style = self._certain(name.lower().split("-"))
        while len(tokens) > 1 and tokens[-1] in AMBIGUOUS:
            base = "-".join(tokens[:-1])
            if base not in self._bases and not (tokens[-1] in self._styles and base in self._several):
                break
            rest, more = self._certain(tokens[:-1])
            style += [tokens[-1], *more]
            tokens = rest
        return " ".join(VARIANT.sub(r"\1", token) for token in tokens), "-".join(sorted(style))
