"""``prospect merge FOLDER OUTPUT``: a whole model of a folder of adapters, which needs neither peft nor its base."""

from __future__ import annotations

from pathlib import Path

from adapters_dst_smolvlm import merge
from prospect_hf.checked_json import as_dict, load_json
from prospect_hf.checkpoints import load_trained, read_config
from prospect_hf.content_hash import weights_hash
from prospect_hf.errors import UsageError
from prospect_hf.files import sole_writer
from prospect_hf.hub.model_card import write_card
from prospect_hf.hub.weights import WEIGHTS_KEY, check_weights, new_model_files
from prospect_hf.terminal import say


def run(folder: Path, output: Path, base: str | None = None, original_base: bool = False) -> None:
    """Merge the adapters in ``folder`` into their base model and save the whole model, its processor and its card.

    Of a base that was quantised in training, the dequantised weights are taken: the adapters were trained on those.

    Args:
        folder: with adapters.
        output: the folder to write; an earlier model in it is replaced.
        base: folder or Hub id of the base model, where it is not where ``folder`` says.
        original_base: take the base's own weights, and not the dequantised ones.

    Raises:
        UsageError: ``folder`` holds no adapters or cannot be loaded, or ``output`` would touch it or its base.
    """
    _check_output(output, folder, "adapters")
    results = folder / "results.json"
    facts = as_dict(load_json(results), str(results)) if results.is_file() else None
    if facts is not None:
        check_weights(folder, facts.get(WEIGHTS_KEY), results)
    model, processor = load_trained(folder, base, quantized=not original_base)
    if model.config.adapter is None:
        raise UsageError(f"{folder} holds a whole model: there is nothing to merge.")
    if original_base and read_config(folder).adapter["quantization"] is None:
        raise UsageError(f"{folder} was trained on the base's own weights: leave out --original-base.")
    base_folder = Path(model.config.adapter["base_model"])
    if base_folder.is_dir():
        _check_output(output, base_folder, "base model")
    merge(model)
    with sole_writer(output), new_model_files(output) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
    if facts is not None:
        write_card(output, {**facts, WEIGHTS_KEY: weights_hash(output)})
    say(f"{output}: {model.config.merged}.")


def _check_output(output: Path, read: Path, what: str) -> None:
    """Refuse an output that is a folder that is read, or lies in it, or around it: saving removes other weights."""
    written, source = output.resolve(), read.resolve()
    if written == source or source in written.parents or written in source.parents:
        raise UsageError(f"{output} must not touch {read}, which holds the {what}: give a folder beside it.")
