"""What a GBNF grammar must satisfy before llama.cpp may read it: its parser recurses, and crashes the process when too deep."""

from __future__ import annotations

from modules.core.errors import BadRequest

MAX_GRAMMAR_BYTES = 65_536
MAX_NESTING = 256  # llama.cpp survives 5,000 on a stack of 8 MiB and crashes at 60,000
MAX_RULES = 4_096  # left recursion is looked for with one stack frame a rule


def check_grammar(text: str) -> None:
    """Raises BadRequest for a grammar too large, too deep, or with a NUL character; what is wrong within it llama.cpp finds."""
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_GRAMMAR_BYTES:
        raise BadRequest(f"The grammar has {size} bytes; at most {MAX_GRAMMAR_BYTES} are read. Make it shorter.", param="grammar")
    if "\x00" in text:
        raise BadRequest("The grammar contains a NUL character; remove it.", param="grammar")
    n_rules = text.count("::=")
    if n_rules > MAX_RULES:
        raise BadRequest(f"The grammar has {n_rules} rules; at most {MAX_RULES} are read. Make it shorter.", param="grammar")
    depth = nesting(text)
    if depth > MAX_NESTING:
        raise BadRequest(f"The grammar nests brackets {depth} deep; at most {MAX_NESTING} are read. Give inner parts rules of "
                         "their own.", param="grammar")


def nesting(text: str) -> int:
    """The deepest nesting of round brackets outside strings, character classes and comments."""
    deepest = depth = 0
    closing = ""  # what ends the string, class or comment we are in
    skip = False
    for character in text:
        if skip:
            skip = False
        elif closing:
            if character == "\\" and closing != "\n":
                skip = True
            elif character == closing:
                closing = ""
        elif character in '"[#':
            closing = {'"': '"', "[": "]", "#": "\n"}[character]
        elif character == "(":
            depth += 1
            deepest = max(deepest, depth)
        elif character == ")":
            depth -= 1
    return deepest
