"""LaTeX to MathML: what is drawn, what shows its source, and that no formula is trusted."""

from __future__ import annotations

import pytest

from modules.ui.blocks import render_message
from modules.ui.mathml import MAX_LATEX, to_mathml

COMMON = [
    r"\frac{a}{b}", r"\sqrt[3]{x}", r"x_i^2", r"\sum_{i=0}^{n} i", r"\int_0^\infty e^{-x}\,dx", r"\mathbb{R}^n \to \mathcal{L}",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{cases}x&y\\z&w\end{cases}", r"\begin{aligned}a&=b\\c&=d\end{aligned}",
    r"\lim_{x\to 0}\frac{\sin x}{x}", r"\hat{y}=\arg\max_i p_i", r"\lVert x\rVert_2", r"\operatorname{softmax}(z)",
    r"\alpha\beta\Gamma", r"a \le b \neq c \approx d", r"\binom{n}{k}", r"\overline{z}", r"\vec{v}\cdot\vec{w}",
    r"\text{if } x > 0", r"\nabla \times E"]


@pytest.mark.parametrize("latex", COMMON)
def test_common_formulas_are_drawn(latex: str) -> None:
    assert to_mathml(latex, display=True).startswith("<math")


@pytest.mark.parametrize("latex", [r"\nosuchcommand", "{" * 3000, "x" * (MAX_LATEX + 1), r"\frac{a", "{" * 100 + "x" + "}" * 100,
                                   r"\def\a{\a\a}\a"])
def test_what_cannot_be_drawn_shows_its_source_escaped(latex: str) -> None:
    html = to_mathml(latex, display=False)
    assert html.startswith('<code class="latex">$') and "<" not in html[1:].replace("</code>", "")


@pytest.mark.parametrize("latex", [r"\text{<img src=x onerror=alert(1)>}",
                                   r"\nosuch{<img src=x>}", r"\mbox{<b>}", r"\href{javascript:x}{<i>}"])
def test_text_in_a_formula_stays_text(latex: str) -> None:
    assert not any(tag in to_mathml(latex, display=True) for tag in ("<img", "<b>", "<i>"))


def test_alignment_survives_as_classes_not_styles() -> None:
    html = "".join(render_message("$$\\begin{aligned}a&=b\\\\c&=d\\end{aligned}$$"))
    assert 'class="ar pr0"' in html and "style" not in html.replace("mathstyle", "")
