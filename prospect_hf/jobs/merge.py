"""``prospect merge FOLDER OUTPUT``: a whole model of a folder of adapters, which needs neither peft nor its base."""

from __future__ import annotations

from pathlib import Path

from adapters_dst_smolvlm import merge
from prospect_hf.checked_json import as_dict, load_json
from prospect_hf.checkpoints import load_trained
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
        UsageError: ``folder`` holds no adapters or cannot be loaded, or ``output`` is the folder or its base.
    """
    if output.resolve() == folder.resolve():
        raise UsageError(f"{output} holds the adapters themselves: give another folder for the whole model.")
    results = folder / "results.json"
    facts = as_dict(load_json(results), str(results)) if results.is_file() else None
    if facts is not None:
        check_weights(folder, facts.get(WEIGHTS_KEY), results)
    model, processor = load_trained(folder, base, quantized=not original_base)
    if model.config.adapter is None:
        raise UsageError(f"{folder} holds a whole model: there is nothing to merge.")
    base_folder = Path(model.config.adapter["base_model"])
    if output.resolve() == base_folder.resolve():
        raise UsageError(f"{output} holds the base model, which is read and not replaced: give another folder.")
    merge(model)
    with sole_writer(output), new_model_files(output) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
    if facts is not None:
        write_card(output, {**facts, WEIGHTS_KEY: weights_hash(output)})
    say(f"{output}: {model.config.merged}.")
