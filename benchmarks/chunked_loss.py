"""Peak memory and time of the text loss with its backward pass: plain logits and cross-entropy, ours, and the kernels.

Each side runs in a new process on the same weights, hidden states and labels. The peak is the largest resident memory
of the first pass minus that before it (on a GPU: of the allocator); it holds the gradients. Seconds are the median of
the later passes: on a CPU those that the process computed, which other jobs disturb less. A difference is the largest
of the loss or a gradient against the plain loss's, divided by the largest entry of that.

* stock: ``cross_entropy(lm_head(hidden))``
* ours: ``text_loss_dst_smolvlm.summed_cross_entropy``
* torch: ``torch.nn.functional.linear_cross_entropy`` with its own choice of pieces, where torch has it
* liger: ``LigerFusedLinearCrossEntropyFunction``, on a GPU where the package is installed

Examples:
    python benchmarks/chunked_loss.py
    python benchmarks/chunked_loss.py --hidden 576 --repeats 1
    python benchmarks/chunked_loss.py --device cuda --dtype bfloat16

Exit codes: 0 done, 1 a limit is exceeded (float32: gradients differ by 1e-6 or ours takes over 0.35 of the memory where
all places are labelled), 2 a bad argument or a system on which peaks cannot be measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from fresh_process import measured, peak_bytes, reset_peak, resident_bytes
from torch import Tensor, nn

from prospect_hf.machine import machine
from prospect_hf.tables import table
from text_loss_dst_smolvlm import summed_cross_entropy

VOCABULARY, PLACES, FEW = 49_280, 4096, 205
MOST_MEMORY, MOST_DIFFERENCE = 0.35, 1e-6
Loss = Callable[[nn.Linear, Tensor, Tensor], Tensor]


def stock(head: nn.Linear, rows: Tensor, targets: Tensor) -> Tensor:
    """The loss on the logits of all places."""
    return F.cross_entropy(head(rows).float(), targets, reduction="sum")


def of_torch(head: nn.Linear, rows: Tensor, targets: Tensor) -> Tensor:
    """torch's own loss in pieces."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(rows, head.weight, targets, reduction="sum", options=options)


def of_liger(head: nn.Linear, rows: Tensor, targets: Tensor) -> Tensor:
    """Liger's fused loss."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return liger_fused_linear_cross_entropy(rows, head.weight, targets, reduction="sum")


SIDES: dict[str, Loss] = {"stock": stock, "ours": summed_cross_entropy, "torch": of_torch, "liger": of_liger}


def sides_here(device: str) -> list[str]:
    """The sides that can run on this machine."""
    there = ["stock", "ours"]
    there += ["torch"] if hasattr(F, "linear_cross_entropy") else []
    return there + (["liger"] if device == "cuda" and find_spec("liger_kernel") else [])


def inputs(args: argparse.Namespace) -> tuple[nn.Linear, Tensor, Tensor]:
    """Head, hidden states and labels, of the sizes of a model."""
    torch.manual_seed(0)
    head = nn.Linear(args.width, VOCABULARY, bias=False)
    nn.init.normal_(head.weight, std=0.02)
    head.to(args.device, getattr(torch, args.dtype)).requires_grad_(not args.frozen)
    rows = torch.randn(args.places, args.width).to(args.device, head.weight.dtype).requires_grad_()
    return head, rows, torch.randint(0, VOCABULARY, (args.places,), device=args.device)


def gradients(loss: Loss, head: nn.Linear, rows: Tensor, targets: Tensor) -> list[Tensor]:
    """The loss and the gradients, one pass forward and back."""
    rows.grad = head.weight.grad = None
    total = loss(head, rows, targets)
    (total / len(rows)).backward()
    return [total.detach(), *(grad for grad in (rows.grad, head.weight.grad) if grad is not None)]


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Peak bytes, seconds, and the largest difference from the stock loss, of one side in this process."""
    loss, on_gpu = SIDES[args.measure], args.device == "cuda"
    head, rows, targets = inputs(args)
    gradients(stock, head, rows[:8].detach().requires_grad_(), targets[:8])  # loads the libraries
    head.weight.grad = None
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        reset_peak()
        before = resident_bytes()
    found = gradients(loss, head, rows, targets)
    peak = (torch.cuda.max_memory_allocated() if on_gpu else peak_bytes()) - before
    seconds = []
    for _ in range(args.repeats):
        now = time.perf_counter if on_gpu else time.process_time
        began = now()
        found = gradients(loss, head, rows, targets)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(now() - began)
    expected = gradients(stock, head, rows, targets)
    differences = [
        float((one.double() - other.double()).abs().max() / other.double().abs().max())
        for one, other in zip(found, expected, strict=True)
    ]
    return {"bytes": peak, "seconds": statistics.median(seconds), "difference": max(differences)}


def rows_of(args: argparse.Namespace, width: int, places: int, frozen: bool) -> tuple[list[list[str]], bool]:
    """The rows of one size, and whether ours keeps the limits."""
    found: dict[str, dict[str, float]] = {}
    for side in args.sides:
        given = [side, "--width", str(width), "--places", str(places), *(["--frozen"] if frozen else [])]
        given += ["--device", args.device, "--dtype", args.dtype, "--repeats", str(args.repeats)]
        found[side] = measured(__file__, given)
    plain, own = found["stock"], found["ours"]
    kept = places < PLACES or own["bytes"] <= MOST_MEMORY * plain["bytes"]
    kept &= args.dtype != "float32" or own["difference"] <= MOST_DIFFERENCE
    return [
        [
            f"{width}",
            f"{places}",
            "frozen" if frozen else "trained",
            side,
            f"{values['bytes'] / 2**20:.0f} MiB",
            f"{values['bytes'] / plain['bytes']:.2f} x",
            f"{values['seconds']:.2f} s",
            f"{values['seconds'] / plain['seconds']:.2f} x",
            f"{values['difference']:.0e}",
        ]
        for side, values in found.items()
    ], kept


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", default="576,2048", help="widths of the model (default 576,2048)")
    parser.add_argument("--sides", help="stock, ours and others, by commas (default: all that run here)")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes of each side (default 3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--measure", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--width", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--places", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--frozen", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(args)))
        return 0
    widths, there = args.hidden.split(","), sides_here(args.device)
    args.sides = args.sides.split(",") if args.sides else there
    if not {"stock", "ours"} <= set(args.sides) <= set(there):
        parser.error(f"--sides takes stock, ours and others of {', '.join(there)}")
    if args.repeats < 1 or not all(width.isdigit() and int(width) for width in widths):
        parser.error("--hidden takes widths, such as 576,2048, and --repeats is 1 or more")
    rows = [["hidden", "labelled", "head", "side", "peak", "memory", "seconds", "time", "difference"]]
    all_kept = True
    try:
        peak_bytes()
        for width in map(int, widths):
            for places, frozen in ((PLACES, False), (PLACES, True), (FEW, False)):
                more, kept = rows_of(args, width, places, frozen)
                rows += more
                all_kept &= kept
    except OSError as error:
        print(f"error: {error}; peaks are measured on Linux.", file=sys.stderr)
        return 2
    print(f"Vocabulary {VOCABULARY}, {args.dtype}, {torch.get_num_threads()} threads; {machine()}")
    print(table(rows))
    return 0 if all_kept else 1


if __name__ == "__main__":
    sys.exit(main())
