"""Speed and memory on one GPU: training, streaming and several live streams, in one table, within 8 minutes.

    PYTHONPATH=. python benchmarks/gpu.py                        # on a GPU
    PYTHONPATH=. python benchmarks/gpu.py --device cpu --tiny    # every section with tiny sizes, in about a minute

Needs torch, transformers, peft, bitsandbytes and the files of this repository; nothing is downloaded: the models have
the sizes of SmolVLM2-256M, -500M and -2.2B and random weights. On a machine without a network, bring what is missing
as wheels (``pip show transformers peft bitsandbytes`` there says what it has) in the folder ``wheels``:

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 --platform manylinux2014_x86_64 \\
        -d wheels transformers==5.24.0 peft==0.21.2 bitsandbytes==0.50.2                             # where pip works
    python -m pip install --no-index --no-deps --no-compile --target /opt/site wheels/*.whl          # on the machine
    PYTHONPATH=/opt/site:. PYTHONUNBUFFERED=1 python benchmarks/gpu.py --plan memory.json --output FOLDER

Sections, in this order, each in a process of its own, so that an error on the device or a hang ends one section alone:

* training: QLoRA and bf16-LoRA steps of the 2.2B shape; peak memory beside the plan, tokens/s, share of peak FLOPs.
* stock: our step with four losses against the stock model's, with the same weights.
* streaming: milliseconds a frame, from features and from a picture, and of one pass as a CUDA graph.
* batch: how many live streams of 2 frames a second a ``StreamBatch`` follows.
* compiled: the same pass compiled by ``torch.compile``.

The predicted memory comes from ``--plan FILE``, GiB by name of the step: ``benchmarks/gpu_plan.py FILE`` writes it on
any machine where the package is installed.

Results are printed and written as they come: FOLDER/gpu.md and FOLDER/gpu.json are whole at any time.

Exit codes: 0 done (what did not fit into the time is listed), 1 a measurement failed, 2 a bad argument, no such device,
or a package is missing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gpu_records import Budget, Records, by_section, markdown, read_records

from prospect_hf.checked_json import as_dict, get_number, load_json
from prospect_hf.errors import DataError, UsageError
from prospect_hf.files import write_json, write_text

SECONDS = 460  # of all sections together, so that the script ends within 8 minutes
LEAST = 15.0  # seconds of a section: starting Python and importing torch take most of them
KILL_AFTER = 12.0  # seconds beyond its limit that a section has to end by itself
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
NEEDED = {"torch": (2, 6), "transformers": (5, 24), "peft": (0, 19), "bitsandbytes": (0, 48)}


@dataclass(frozen=True)
class Section:
    """One part: its module, which has ``run(records, device, tiny, plan)``; its share of the time; its heading."""

    module: str
    share: float
    heading: str


SECTIONS = {
    "training": Section("gpu_training", 110, "Training steps of the 2.2B shape"),
    "stock": Section("gpu_stock", 60, "A step with four losses against the stock model's"),
    "streaming": Section("gpu_streaming", 70, "Milliseconds a frame of one stream"),
    "batch": Section("gpu_batch", 110, "Live streams of 2 frames a second on one card"),
    "compiled": Section("gpu_compiled", 110, "The pass of one frame, compiled"),
}


def missing_package() -> str | None:
    """One sentence about a package that is missing or too old; None where all are there."""
    for name, least in NEEDED.items():
        wanted = ".".join(map(str, least))
        try:
            found = version(name)
        except PackageNotFoundError:
            return f"{name} is not installed; install {name}>={wanted}."
        if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < least:
            return f"{name} {found} is too old; install {name}>={wanted}."
    return None


def read_plan(file: Path) -> dict[str, float]:
    """Planned GiB by the name of a step.

    Raises:
        UsageError, DataError: there is no such file, or it holds something else.
    """
    plan = as_dict(load_json(file), str(file))
    return {name: get_number(plan, name, str(file)) for name in plan}


def publish(folder: Path, records: Path, sections: Sequence[str]) -> None:
    """Write the tables of what is recorded so far; each file is replaced whole."""
    results = by_section(read_records(records), sections)
    headings = {name: SECTIONS[name].heading for name in sections}
    write_text(folder / "gpu.md", markdown("On a GPU", headings, results))
    write_json(folder / "gpu.json", {name: asdict(result) for name, result in results.items()})


def run_section(
    name: str, limit: float, records: Path, folder: Path, sections: Sequence[str], command: Sequence[str]
) -> bool:
    """Run one section, the process ``command``, for ``limit`` seconds at most; returns whether it went well.

    The results of all ``sections`` in ``folder`` are written anew whenever ``records`` grows.
    """
    log = Records(records, name, Budget(limit))
    began = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True, env=os.environ | OFFLINE)
    stopped, seen = False, 0
    try:
        while process.poll() is None and not stopped:
            time.sleep(0.2)
            size = records.stat().st_size if records.exists() else 0
            if size > seen:
                seen = size
                publish(folder, records, sections)
            stopped = time.monotonic() - began > limit + KILL_AFTER
    finally:
        if process.poll() is None:
            # The section, and the processes that it started to compile.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if stopped:
        log.add("error", f"stopped after {limit + KILL_AFTER:.0f} s: it did not end by itself")
    elif process.returncode not in (0, 1):  # 1: it has said why
        log.add("error", f"its process ended with code {process.returncode}")
    log.add("done", round(time.monotonic() - began, 1))
    publish(folder, records, sections)
    return process.returncode == 0


def run_in_this_process(args: argparse.Namespace) -> int:
    """A section's own process: 0 all its measurements were taken, 1 one failed."""
    records = Records(args.records, args.section, Budget(args.seconds))
    plan = read_plan(args.plan) if args.plan else {}

    def section() -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        importlib.import_module(SECTIONS[args.section].module).run(records, args.device, args.tiny, plan)

    records.attempt(f"section {args.section}", 0, section)
    return 1 if records.failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda", help="where the models run (cuda)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: shows that every section runs")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"default {','.join(SECTIONS)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of all sections together ({SECONDS})")
    parser.add_argument("--plan", type=Path, help="JSON file of predicted GiB by case")
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu"), help="folder of the results (outputs/gpu)")
    parser.add_argument("--section", choices=tuple(SECTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--records", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.section:
        # Ends this process even where the one that started it is gone.
        signal.alarm(int(args.seconds + 2 * KILL_AFTER))
        return run_in_this_process(args)
    names = args.sections.split(",")
    if not set(names) <= set(SECTIONS) or not args.seconds > 0:
        parser.error(f"--sections takes {', '.join(SECTIONS)}, and --seconds is above 0")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", args.device):
        parser.error(f"--device must be cpu, cuda or cuda:N, not {args.device!r}")
    if args.device == "cpu" and not args.tiny:
        parser.error("on a CPU these sizes take hours: add --tiny")
    if args.plan is not None:
        try:
            read_plan(args.plan)
        except (UsageError, DataError) as error:
            parser.error(f"--plan: {error}")
    budget, well = Budget(args.seconds), True
    problem = missing_package()
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    # Asked in another process: this one holds no memory of the device.
    asked = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if args.device != "cpu" and subprocess.run([sys.executable, "-c", asked], check=False).returncode:
        print("error: there is no CUDA device; give --device cpu --tiny", file=sys.stderr)
        return 2

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the section that runs, too
    args.output.mkdir(parents=True, exist_ok=True)
    records = args.output / "gpu.jsonl"
    records.unlink(missing_ok=True)
    passed = ["--device", args.device, *(["--tiny"] if args.tiny else [])]
    passed += ["--plan", str(args.plan)] if args.plan else []
    for place, name in enumerate(names):
        limit = budget.share([SECTIONS[later].share for later in names[place:]])
        if limit < LEAST:
            log = Records(records, name, budget)
            log.add("skipped", f"the whole section: {limit:.0f} s are left for it, and it needs {LEAST:.0f} s or more")
            log.add("done", 0.0)
            continue
        own = ["--section", name, "--records", str(records), "--seconds", f"{limit:.1f}"]
        well &= run_section(name, limit, records, args.output, names, [sys.executable, __file__, *own, *passed])
    publish(args.output, records, names)
    print(f"\n{(args.output / 'gpu.md').read_text(encoding='utf-8')}\nwritten to {args.output}/gpu.md and gpu.json")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
