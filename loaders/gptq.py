"""GPTQ and AWQ checkpoints: 4-bit on the CPU by PyTorch's own kernel, everything else through GPTQModel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modules.core.errors import LoadFailed
from modules.core.knobs import knobs_of, setting
from modules.core.loader import Loader, LoaderSpec, ModelFile, Progress
from modules.sampling.chain import HONOURED

from .transformers_parts.facts import FEATURES
from .transformers_parts.ready import CommonOptions, finish, set_threads

if TYPE_CHECKING:
    from .gptq_parts.packing import Packing
    from .transformers_parts.checkpoint import Checkpoint


@dataclass(frozen=True)
class Options(CommonOptions):
    device: str = setting("choice", "auto", "Device", "Where the model runs; auto takes a GPU where there is one.",
                          choices=("auto", "cuda", "cpu"))
    dtype: str = setting("choice", "auto", "Number format", "Of what is not quantized, and of the KV cache. auto: the "
                         "checkpoint's own on a GPU; on a CPU float32, or bfloat16 for larger models where it computes in it.",
                         choices=("auto", "float32", "bfloat16", "float16"))
    kernel: str = setting("choice", "auto", "Kernel", "int4: PyTorch's for 4-bit weights on a CPU. gptqmodel: GPTQModel's, "
                          "for GPUs and other widths. dense: unpacks the weights while loading, any width, as large as before "
                          "they were quantized. auto: int4 where it can, else gptqmodel.",
                          choices=("auto", "int4", "gptqmodel", "dense"))


def accepts(file: ModelFile) -> float:
    return 1.0 if file.format in ("gptq", "awq") else 0.0


def load(path: str, options: dict[str, Any], progress: Progress) -> Loader:
    """The model in this folder, ready to run; raises LoadFailed or OutOfMemory, and lets Cancelled through."""
    from .gptq_parts.packing import read_packing
    from .transformers_parts import checkpoint as checkpoints

    checkpoint = checkpoints.inspect(path, packed=True)
    packing = read_packing(checkpoint.packing)
    progress(0.01, "Starting PyTorch and Transformers")
    from .transformers_parts import model as models

    with models.plain_errors(checkpoint.folder.name), models.offline():
        set_threads(options["threads"])
        device = models.choose_device(options["device"])
        config = models.load_config(checkpoint)
        dtype = models.choose_dtype(options["dtype"], checkpoint, config, device)
        kernel = choose_kernel(options["kernel"], packing, device)
        progress(0.05, "Reading the tokenizer")
        tokenizer = models.load_tokenizer(checkpoint)
        model = _model(checkpoint, config, packing, {**options, "kernel": kernel}, dtype, device, progress)
        chosen = {**options, "dtype": str(dtype).removeprefix("torch."), "kernel": kernel, "quantization": str(packing)}
        return finish(model, tokenizer, device, chosen, progress)


def choose_kernel(wanted: str, packing: Packing, device: str) -> str:
    """int4, gptqmodel or dense; raises LoadFailed where the wanted one cannot serve these weights there."""
    is_ours = device == "cpu" and not packing.varies
    fits = {"int4": is_ours and packing.bits == 4, "dense": is_ours, "gptqmodel": True}
    if wanted == "auto":
        return "int4" if fits["int4"] else "gptqmodel"
    if not fits[wanted]:
        raise LoadFailed(f"{packing} on {device} cannot be loaded with kernel {wanted}: int4 is for 4 bits on a CPU, dense for "
                         "a CPU. Choose auto or gptqmodel.", param="kernel")
    return wanted


def _model(checkpoint: Checkpoint, config: Any, packing: Packing, options: dict[str, Any], dtype: Any, device: str,
           progress: Progress) -> Any:
    from .gptq_parts import fill, gptqmodel, linear

    if options["kernel"] == "gptqmodel":
        progress(0.08, "Loading weights with GPTQModel")
        return gptqmodel.build(checkpoint, config, dtype, device, f"{packing} on {device}")

    def make(layer: Any) -> Any:
        return (linear.int4(layer) if options["kernel"] == "int4" else None) or linear.dense(layer, dtype)

    attention = None if options["attention"] == "auto" else options["attention"]
    return fill.build(checkpoint, config, packing, make, dtype, attention, progress)


SPEC = LoaderSpec(
    name="gptq", title="GPTQ and AWQ", accepts=accepts, load=load, requires=("torch", "transformers", "accelerate"),
    install="pip install -r requirements.txt", options=knobs_of(Options), params=HONOURED, features=FEATURES)
