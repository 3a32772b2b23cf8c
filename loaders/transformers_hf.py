"""Safetensors folders through Hugging Face Transformers, with bitsandbytes, torchao and PEFT, on CPU, CUDA or Metal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.core.errors import LoadFailed
from modules.core.knobs import knobs_of, setting
from modules.core.loader import Loader, LoaderSpec, ModelFile, Progress
from modules.core.mapped import let_go
from modules.sampling.chain import HONOURED

from .transformers_parts.facts import FEATURES
from .transformers_parts.placement import PlacementOptions, place
from .transformers_parts.ready import AHEAD, ALONE, CommonOptions, finish, set_threads

if TYPE_CHECKING:
    from .transformers_parts.draft import HfDraft


@dataclass(frozen=True)
class Options(PlacementOptions, CommonOptions):
    device: str = setting("choice", "auto", "Device", "Where the model runs; auto takes a GPU where there is one.",
                          choices=("auto", "cuda", "mps", "cpu"))
    dtype: str = setting("choice", "auto", "Number format", "Of weights and KV cache. auto: the checkpoint's own on a GPU; on a "
                         "CPU float32, or bfloat16 for larger half-precision models where the CPU computes in it.",
                         choices=("auto", "float32", "bfloat16", "float16"))
    quantization: str = setting("choice", "none", "Quantization", "Shrinks the weights while loading: 8bit and 4bit (nf4 with "
                                "double quantization) with bitsandbytes, int8 with torchao: each row of 8-bit numbers has one "
                                "scale, activations stay as they are.", choices=("none", "8bit", "4bit", "int8"))
    compute_dtype: str = setting("choice", "auto", "4-bit number format", "In which 4-bit weights are computed; auto is the "
                                 "number format.", choices=("auto", "float32", "bfloat16", "float16"))
    speculation: str = setting("choice", "none", "Speculation", f"{AHEAD} prompt_lookup guesses what the chat repeats, "
                               f"draft_model asks a smaller model. {ALONE}", choices=("none", "prompt_lookup", "draft_model"))
    draft_model: str = setting("model", "", "Draft model", "For speculation draft_model: a smaller model of the same family.",
                               maximum=1000)


def accepts(file: ModelFile) -> float:
    return 1.0 if file.format == "safetensors" else 0.0


def load(path: str, options: dict[str, Any], progress: Progress) -> Loader:
    """The model in this folder, ready to run; raises LoadFailed or OutOfMemory, and lets Cancelled through."""
    from .transformers_parts import checkpoint as checkpoints

    checkpoint = checkpoints.inspect(path)
    progress(0.01, "Starting PyTorch and Transformers")
    from .transformers_parts import model as models

    with models.plain_errors(checkpoint.folder.name), models.offline():
        set_threads(options["threads"])
        device = models.choose_device(options["device"])
        config = models.load_config(checkpoint)
        dtype = models.choose_dtype(options["dtype"], checkpoint, config, device)
        placement = place(options, device)
        try:
            progress(0.05, "Reading the tokenizer")
            tokenizer = models.load_tokenizer(checkpoint)
            with models.weight_progress(progress, 0.08, 0.95):
                model = models.load_weights(checkpoint, config, options, dtype, device, placement)
            if options["quantization"] != "none":
                let_go(checkpoint.folder.glob("*.safetensors"))  # else a float32 file stays beside its 8-bit weights
            chosen = {**options, "dtype": str(dtype).removeprefix("torch."), "draft_model": Path(options["draft_model"]).name}
            if options["quantization"] == "none" and checkpoint.quantization:
                chosen["quantization"] = checkpoint.quantization
            draft = _draft(options, dtype, device, progress)
            return finish(model, tokenizer, device, chosen, progress, SPEC.features, draft, placement)
        except BaseException:
            placement.close()
            raise


def _draft(options: dict[str, Any], dtype: Any, device: str, progress: Progress) -> HfDraft | None:
    """The draft model, unquantized, where the options want one; raises as `load`."""
    wants_one = options["speculation"] == "draft_model"
    if wants_one != bool(options["draft_model"]):
        raise LoadFailed("speculation draft_model and a draft_model go together: choose both, or neither.", param="draft_model")
    if not wants_one:
        return None
    from .transformers_parts import checkpoint as checkpoints
    from .transformers_parts import model as models
    from .transformers_parts.draft import HfDraft

    checkpoint = checkpoints.inspect(options["draft_model"])
    with models.plain_errors(checkpoint.folder.name), models.weight_progress(progress, 0.95, 0.95):
        config = models.load_config(checkpoint)
        plain = {**options, "quantization": "none"}
        model = models.load_weights(checkpoint, config, plain, dtype, device, place({}, device))
        return HfDraft(model, models.load_tokenizer(checkpoint), device)


SPEC = LoaderSpec(
    name="transformers", title="Transformers", accepts=accepts, load=load, requires=("torch", "transformers", "accelerate"),
    install="pip install -r requirements.txt", options=knobs_of(Options), params=HONOURED,
    features=FEATURES | {"adapters"}, adapters="safetensors")
