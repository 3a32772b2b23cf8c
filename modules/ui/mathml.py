"""LaTeX to MathML: math-core first, latex2mathml where that fails and is safe, the source where both fail."""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape

MAX_LATEX = 4_000  # characters; longer ones are shown as source
MAX_DEPTH = 60  # nested braces; the Rust parser recurses, and a deep formula must not end the process
_ALIGN = re.compile(r'style="([^"]*)"')
_BORDERS = {"border-right": "mr", "border-left": "ml", "border-top": "mt", "border-bottom": "mb"}


@lru_cache(maxsize=512)
def to_mathml(latex: str, *, display: bool) -> str:
    """HTML of the formula: a `math` element, or its source in `code.latex`. Not sanitised yet: the caller does that last."""
    latex = latex.strip()
    if len(latex) <= MAX_LATEX and _depth(latex) <= MAX_DEPTH:
        found = _by_math_core(latex, display) or _by_latex2mathml(latex, display)
        if found:
            return found
    mark = "$$" if display else "$"
    return f'<code class="latex">{escape(mark + latex + mark, quote=False)}</code>'


def _depth(latex: str) -> int:
    """How deep its braces nest."""
    depth = deepest = 0
    for brace in re.findall(r"[{}]", latex):
        depth += 1 if brace == "{" else -1
        deepest = max(deepest, depth)
    return deepest


def _by_math_core(latex: str, display: bool) -> str:
    from math_core import LatexError, LatexToMathML

    try:
        found: str = LatexToMathML(continue_on_error=False).convert_with_local_state(latex, displaystyle=display)
    except LatexError:
        return ""  # the source, or the other converter, stands in
    return _ALIGN.sub(lambda match: f'class="{_classes(match.group(1))}"', found)


def _classes(style: str) -> str:
    """The classes of style.css that stand for math-core's inline style; what has none is left out."""
    names = []
    for rule in style.split(";"):
        key, _, value = (part.strip() for part in rule.partition(":"))
        if key == "text-align":
            names.append({"left": "al", "right": "ar"}.get(value, "ac"))
        elif key in ("padding-left", "padding-right"):
            names.append(("pl" if key.endswith("left") else "pr") + ("0" if value == "0" else "1"))
        elif key in _BORDERS:
            names.append(_BORDERS[key])
    return " ".join(names)


def _by_latex2mathml(latex: str, display: bool) -> str:
    """Its output is used only where it can be trusted: it escapes no text, completes open braces, keeps unknown commands."""
    if any(mark in latex for mark in "<>&") or latex.count("{") != latex.count("}"):
        return ""
    from latex2mathml.converter import convert

    try:
        found = str(convert(latex, display="block" if display else "inline"))
    except Exception:  # noqa: BLE001 - it raises many kinds, IndexError among them, for bad input
        return ""
    return "" if "\\" in found else found
