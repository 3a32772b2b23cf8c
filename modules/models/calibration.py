"""Texts that GPTQ watches a model's layers with: the project's own documents, unless a person gives others."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 4 << 20
PIECE = 2000  # characters, about 500 tokens


def calibration_texts(path: Path | None = None) -> list[str]:
    """Pieces of about 2,000 characters, cut between paragraphs; from the file at `path`, or from README.md and docs/."""
    paths = [path] if path is not None else [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    pieces = []
    for one in paths:
        with one.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace")
        piece = ""
        for paragraph in text.split("\n\n"):
            piece = f"{piece}\n\n{paragraph}" if piece else paragraph
            if len(piece) >= PIECE:
                pieces.append(piece)
                piece = ""
        if piece.strip():
            pieces.append(piece)
    return pieces
