"""Models made from others: equal to what llama.cpp's own quantizer makes, whole or not there, refused in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.gguf_quantize import quantize as by_llama_cpp
from modules.core.errors import AppError, BadRequest, Cancelled, Conflict, LoadFailed
from modules.models.convert import convert
from modules.models.making import WORK, Making, check_room, clear, order
from modules.models.targets import TARGETS, amounts, find_target, forecast_bytes, refusal, result_name
from modules.store.headers import read_model
from tests.tiny_models import tiny_gguf, tiny_hf

ROOT = Path(__file__).resolve().parent.parent
llama_cpp = pytest.importorskip("llama_cpp")
SMALLER = [name for name, target in TARGETS.items() if target.via == "gguf" and not target.is_whole]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    path = folder.parent / "model-F32.gguf"
    convert(folder, path, "f32")
    return path


def make(source: Path, target: str, path: Path, **options: Any) -> Making:
    making = Making(order(read_model(source), find_target(target), path, path.parent, **options))
    check_room(making.order)
    making.run(lambda values: None)
    return making


@pytest.mark.parametrize("kind", SMALLER)
def test_every_type_equals_what_llama_cpp_makes_and_says_words(tmp_path: Path, folder: Path, whole: Path, kind: str) -> None:
    """In one go from the folder, by way of a whole file that is gone afterwards."""
    subprocess.run([sys.executable, "-m", "benchmarks.gguf_quantize", str(whole), str(tmp_path / "theirs.gguf"), kind], cwd=ROOT,
                   check=True, capture_output=True)
    making = make(folder, kind, tmp_path / "ours.gguf")
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.gguf", "theirs.gguf"]
    assert any("blk.2.ffn_up" in line for line in making.log)
    made = read_model(tmp_path / "ours.gguf")
    assert not made.problem and made.quantization == kind
    assert TARGETS[kind].words.partition(",")[0].endswith("bit")


def test_q8_0_of_our_own_holds_the_same_weights_as_llama_cpps(tmp_path: Path, folder: Path, whole: Path) -> None:
    """It is written without a file between; only the header differs."""
    import gguf
    by_llama_cpp(whole, tmp_path / "theirs.gguf", "Q8_0", 1)
    make(folder, "q8_0", tmp_path / "ours.gguf")
    ours, theirs = ({tensor.name: (tensor.tensor_type, tensor.data.tobytes()) for tensor in gguf.GGUFReader(path).tensors}
                    for path in (tmp_path / "ours.gguf", tmp_path / "theirs.gguf"))
    assert ours == theirs


def test_a_file_of_half_precision_and_of_8_bits_can_be_made_smaller(tmp_path: Path) -> None:
    for kind in ("f16", "bf16", "q8_0"):
        source = tiny_gguf(tmp_path / f"m-{kind}.gguf", kind=kind)
        make(source, "q4_k_m", tmp_path / f"{kind}-small.gguf")
        assert read_model(tmp_path / f"{kind}-small.gguf").quantization == "Q4_K_M"


def test_progress_counts_tensors(tmp_path: Path, folder: Path) -> None:
    told: list[dict[str, Any]] = []
    making = Making(order(read_model(folder), TARGETS["Q4_K_M"], tmp_path / "x.gguf", tmp_path))
    making.run(told.append)
    counted = [one for one in told if str(one["what"]).startswith("Quantizing")]
    assert [one["done"] for one in counted] == list(range(30)) and {one["total"] for one in counted} == {30}
    assert told[0]["what"] == "Writing F32 first" and told[-1]["what"] == "Checking the result"


def test_a_cancel_ends_the_child_and_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    for step in ("Writing F32 first", "Quantizing to Q2_K", "Checking the result"):
        making = Making(order(read_model(folder), TARGETS["Q2_K"], tmp_path / "x.gguf", tmp_path))

        def stop(values: dict[str, Any], making: Making = making, step: str = step) -> None:
            if values["what"] == step:
                making.cancel()

        with pytest.raises(Cancelled):
            making.run(stop)
        assert making._process is not None and making._process.poll() is not None
        assert not list(tmp_path.iterdir())


def test_a_cancel_before_the_start_starts_nothing(tmp_path: Path, folder: Path) -> None:
    making = Making(order(read_model(folder), TARGETS["Q2_K"], tmp_path / "x.gguf", tmp_path))
    making.cancel()
    with pytest.raises(Cancelled):
        making.run(lambda values: None)
    assert making._process is None and not list(tmp_path.iterdir())


def test_a_child_whose_parent_is_killed_ends_and_takes_its_work_with_it(tmp_path: Path, folder: Path) -> None:
    work = tmp_path / WORK / "abc"
    work.mkdir(parents=True)
    child = subprocess.Popen([sys.executable, "-m", "modules.models.make_child", str(folder), "Q2_K", str(work)], cwd=ROOT,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    child.stdout.readline()  # it works
    child.stdin.close()      # what the system does when a parent dies
    assert child.wait(60) == 1
    child.stdout.close()
    assert not work.exists()
    clear(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_killed_command_leaves_no_process_and_no_half_file(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("bitsandbytes")  # it takes seconds to come up, so that there is a middle
    words = ["-m", "modules.models.convert", str(folder), str(tmp_path / "x"), "--type", "nf4"]
    command = subprocess.Popen([sys.executable, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert command.stderr and "Reading" in command.stderr.readline()
    children = psutil.Process(command.pid).children()
    command.kill()
    command.wait()
    command.stderr.close()
    assert len(children) == 1 and psutil.wait_procs(children, 60)[1] == []
    assert not (tmp_path / "x").exists() and not list((tmp_path / WORK).iterdir())
    clear(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_dead_processes_left_is_removed_and_what_is_alive_stays(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    for name, pid in (("dead", ended.stdout), ("odd", "x"), ("alive", str(alive.pid))):
        (tmp_path / WORK / name).mkdir(parents=True)
        (tmp_path / WORK / name / "pid").write_text(pid)
    clear(tmp_path)
    assert [path.name for path in (tmp_path / WORK).iterdir()] == ["alive"]
    alive.communicate(b"\n")


def test_the_forecast_is_within_a_tenth(tmp_path: Path) -> None:
    """At the proportions of real models: many layers, rows of a multiple of 256."""
    from tests.test_convert_architectures import model_folder
    pytest.importorskip("torch")

    sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 8,
             "num_key_value_heads": 2, "head_dim": 64}
    source = model_folder(tmp_path / "model", "Llama", sizes)
    convert(source, tmp_path / "model.gguf", "f16")
    for file in (read_model(source), read_model(tmp_path / "model.gguf")):
        found = amounts(file)
        for kind in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K"):
            path = tmp_path / f"{kind}.gguf"
            if not path.exists():
                make(tmp_path / "model.gguf", kind, path)
            forecast = forecast_bytes(found, TARGETS[kind])
            assert abs(forecast - path.stat().st_size) < 0.1 * path.stat().st_size, (file.format, kind)


def test_what_is_quantized_already_and_what_would_not_be_smaller_is_refused(tmp_path: Path, folder: Path, whole: Path) -> None:
    small = tmp_path / "small-Q4_0.gguf"
    by_llama_cpp(whole, small, "Q4_0", 1)
    assert "quantized to Q4_0 already" in refusal(read_model(small))
    with pytest.raises(LoadFailed, match="quantized to Q4_0 already"):
        order(read_model(small), TARGETS["Q2_K"], tmp_path / "x.gguf", tmp_path)
    half = read_model(tiny_gguf(tmp_path / "half.gguf", kind="f16"))
    assert "no smaller" in refusal(half, TARGETS["BF16"]) and "no smaller" in refusal(half, TARGETS["F32"])
    assert "own folder" in refusal(half, TARGETS["NF4"])
    about = json.loads((folder / "config.json").read_text())
    copy = shutil.copytree(folder, tmp_path / "falcon")
    (copy / "config.json").write_text(json.dumps(about | {"architectures": ["FalconForCausalLM"]}))
    assert "FalconForCausalLM" in refusal(read_model(copy), TARGETS["Q4_K_M"]) and not refusal(read_model(copy), TARGETS["NF4"])


def test_types_that_are_not_made_say_why() -> None:
    assert find_target("q4-k_m").name == "Q4_K_M" and find_target("gptq-4").via == "gptq"
    with pytest.raises(BadRequest, match="importance matrix"):
        find_target("IQ2_XS")
    with pytest.raises(BadRequest, match="choose one of"):
        find_target("Q7")


def test_names_of_results_stand_beside_their_source(folder: Path, whole: Path) -> None:
    from modules.models.naming import family
    for target in TARGETS.values():
        name = result_name(read_model(folder), target)
        assert family(name) == family("model"), name
    assert result_name(read_model(whole), TARGETS["Q4_K_M"]) == "model-Q4_K_M"


def test_a_name_that_is_taken_and_a_full_disk_are_told_before_anything_is_done(tmp_path: Path, folder: Path,
                                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.gguf").write_text("here first")
    taken = order(read_model(folder), TARGETS["Q2_K"], tmp_path / "x.gguf", tmp_path)
    with pytest.raises(Conflict, match=r"x\.gguf"):
        check_room(taken)
    with pytest.raises(Conflict, match=r"x\.gguf"):  # also where it came while the work was done
        Making(taken).run(lambda values: None)
    assert (tmp_path / "x.gguf").read_text() == "here first"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(AppError, match="free"):
        check_room(order(read_model(folder), TARGETS["Q2_K"], tmp_path / "y.gguf", tmp_path))


def test_a_child_that_dies_is_a_sentence_with_its_last_words(tmp_path: Path, folder: Path) -> None:
    making = Making(order(read_model(folder), TARGETS["Q2_K"], tmp_path / "x.gguf", tmp_path))

    def kill(values: dict[str, Any]) -> None:
        if making._process is not None and str(values["what"]).startswith("Quantizing"):
            making._process.kill()

    with pytest.raises(AppError, match="ended by itself"):
        making.run(kill)
    assert not list(tmp_path.iterdir())


def test_the_command_makes_any_type_and_says_what_is_wrong(tmp_path: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "modules.models.convert", str(folder), str(tmp_path / "x.gguf"), "--type"]
    done = subprocess.run([*command, "q4_k_m"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "x.gguf" in done.stdout and "Quantizing to Q4_K_M" in done.stderr
    again = subprocess.run([*command, "q8_0"], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and read_model(tmp_path / "x.gguf").quantization == "Q8_0"
    wrong = subprocess.run([*command, "q7"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 1 and "choose one of" in wrong.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]


def test_bitsandbytes_saves_what_it_computes(tmp_path: Path, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("bitsandbytes")
    transformers = pytest.importorskip("transformers")
    make(folder, "nf4", tmp_path / "model-bnb-4bit")
    made = read_model(tmp_path / "model-bnb-4bit")
    assert made.quantization == "bnb 4-bit" and abs(made.n_params / read_model(folder).n_params - 1) < 0.01
    saved = json.loads((tmp_path / "model-bnb-4bit" / "config.json").read_text())["quantization_config"]
    assert saved["bnb_4bit_use_double_quant"] is True and saved["bnb_4bit_quant_type"] == "nf4"
    # The same quantization made here while loading, in this process.
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                             bnb_4bit_compute_dtype=torch.float32)
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        one = transformers.AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)
        two = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model-bnb-4bit", dtype=torch.float32)
        for model in (one, two):
            for part in model.modules():
                if hasattr(part, "compute_dtype"):
                    part.compute_dtype = torch.float32
        assert float((one(ids).logits - two(ids).logits).abs().max()) < 0.05 * float(one(ids).logits.std())


def test_gptq_without_its_package_names_the_command(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("gptqmodel", "optimum") else real(name))
    with pytest.raises(LoadFailed, match=r"gptqmodel and optimum.*pip install -r requirements-gptq\.txt"):
        order(read_model(folder), TARGETS["GPTQ-4"], tmp_path / "x", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_gptq_makes_what_our_loader_reads(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("gptqmodel")
    making = make(folder, "gptq-4", tmp_path / "model-GPTQ-4bit")
    made = read_model(tmp_path / "model-GPTQ-4bit")
    assert (made.format, made.quantization, made.problem) == ("gptq", "GPTQ 4-bit g128", "")
    assert not (tmp_path / WORK).exists() and str(tmp_path) not in (tmp_path / "model-GPTQ-4bit" / "config.json").read_text()
    assert making.order.size < read_model(folder).size_bytes


def test_one_making_at_a_time_is_seen_from_any_thread(tmp_path: Path, folder: Path) -> None:
    """Cancel comes from another thread than the one that runs."""
    making = Making(order(read_model(folder), TARGETS["Q2_K"], tmp_path / "x.gguf", tmp_path))
    begun = threading.Event()
    ended: list[BaseException] = []

    def run() -> None:
        try:
            making.run(lambda values: begun.set())
        except AppError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(60)
    making.cancel()
    thread.join(60)
    assert [type(error) for error in ended] == [Cancelled] and not list(tmp_path.iterdir())
