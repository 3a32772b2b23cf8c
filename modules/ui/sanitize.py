"""What HTML may reach the page: an allow-list for nh3, which is the last step for every block."""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape, unescape
from typing import TYPE_CHECKING

from .highlight import class_names

if TYPE_CHECKING:
    import nh3



def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


TEXT_TAGS = _words(
    "a abbr b blockquote br center code dd del details dfn div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr i ins kbd li",
    "mark ol p pre q rp rt ruby s samp small span strike strong sub summary sup table tbody td tfoot th thead tr tt u ul var wbr")
# Without annotation-xml, mglyph and malignmark (mutation XSS), maction (scripted), semantics and annotation (not needed).
MATH_TAGS = _words(
    "math menclose merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle",
    "msub msubsup msup mtable mtd mtext mtr munder munderover")
_MATH_ATTRIBUTES = {
    "math": {"display"}, "mo": {"stretchy", "form", "lspace", "rspace", "fence", "separator", "largeop", "movablelimits",
                                "symmetric", "minsize", "maxsize", "accent"},
    "mi": {"mathvariant"}, "mspace": {"width", "height", "depth"}, "mpadded": {"width", "height", "depth", "lspace", "voffset"},
    "mtable": {"displaystyle", "scriptlevel"}, "mstyle": {"displaystyle", "scriptlevel"}, "mfrac": {"linethickness"},
    "mover": {"accent"}, "munder": {"accentunder"}, "munderover": {"accent", "accentunder"}, "menclose": {"notation"}}
_ALIGN = {"data-align": {"left", "right", "center"}}
_SCHEMES = {"http", "https", "mailto"}
_TAG = re.compile(r"<(?:(/?)([a-zA-Z][^\s/>]*)|([!?]))")
_IMAGE = re.compile(r"<img\b((?:[^>\"']|\"[^\"]*\"|'[^']*')*)>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"\b(src|alt)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+))", re.IGNORECASE)
_FOOTNOTE = re.compile(r"#fn-.{1,200}")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


@lru_cache(maxsize=1)
def _cleaner() -> nh3.Cleaner:
    import nh3

    return nh3.Cleaner(
        tags=set(TEXT_TAGS | MATH_TAGS),
        clean_content_tags=set(),
        attributes={"a": {"href", "title"}, "abbr": {"title"}, "ol": {"start"}, "details": {"open"},
                    "div": {"data-lang", "data-fn"}, "th": {"colspan", "rowspan"}, "td": {"colspan", "rowspan"},
                    **_MATH_ATTRIBUTES},
        tag_attribute_values={"th": _ALIGN, "td": _ALIGN},
        set_tag_attribute_values={"a": {"target": "_blank"}, "pre": {"tabindex": "0"}},
        allowed_classes={"span": {*class_names(), "task", "done"}, "code": {"latex"}, "div": {"code", "math", "fn"},
                         "a": {"image"}, "sup": {"fn"}, "li": {"task-item"},
                         "mtd": {"al", "ar", "ac", "pl0", "pl1", "pr0", "pr1", "mr", "ml", "mt", "mb"}},
        url_schemes=_SCHEMES,
        url_relative=lambda url: url if _FOOTNOTE.fullmatch(url) else None,
        link_rel="noopener noreferrer",
    )


def sanitize(html: str) -> str:
    """The part of `html` that is on the allow-list, balanced, as a fragment of its own.

    Characters beyond U+FFFF become character references, so that a Python index into the result is a JavaScript index too.
    """
    return _ASTRAL.sub(lambda match: f"&#x{ord(match.group()):x};", _cleaner().clean(html))


def showing_raw_html(raw: str) -> str:
    """Raw HTML of a message, prepared so that nothing vanishes: tags off the list become text, images become links."""
    raw = _IMAGE.sub(_raw_image, raw)
    return _TAG.sub(lambda m: m.group() if (m.group(2) or "").lower() in TEXT_TAGS else "&lt;" + m.group()[1:], raw)


def _raw_image(match: re.Match[str]) -> str:
    values = {m.group(1).lower(): unescape(m.group(2) or m.group(3) or m.group(4) or "")
              for m in _ATTRIBUTE.finditer(match.group(1))}
    return image_link(values.get("src", ""), values.get("alt", ""))


def image_link(source: str, alt: str) -> str:
    """A link in an image's place: a picture from another host would tell that host what is being read."""
    source = "" if source.startswith("data:") else source
    return f'<a class="image" href="{escape(source)}">{escape(alt or source or "image")}</a>'
