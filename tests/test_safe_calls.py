"""No module of the project calls what runs code of a file, or leaves it open whether code is run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# Loads a saved folder's code in a new process on purpose, after it has compared that code with the repository's.
RUNS_REMOTE_CODE = "benchmarks/reload.py"
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Call -> the argument that must be given, and its value.
NEEDED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "SentenceTransformer": ("trust_remote_code", False),
    "CrossEncoder": ("trust_remote_code", False),
    "pipeline": ("trust_remote_code", False),
    "transformers.pipeline": ("trust_remote_code", False),
}
FORBIDDEN = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "torch.hub.load", "torch.jit.load", "evaluate.load"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "get_class_from_dynamic_module"),
}
# The metrics' pages on the Hub load the module beside them; the model's class finds the code of a second folder.
ALLOWED = {("app.py", "evaluate.load"), ("adapters_dst_smolvlm.py", "get_class_from_dynamic_module")}


def sources(repository: Path) -> list[Path]:
    """Every module of the package, the remote code, the scripts, the tools and the benchmarks."""
    rooms = ("prospect_hf", "scripts", "tools", "benchmarks")
    return [*repository.glob("*.py"), *(path for room in rooms for path in (repository / room).rglob("*.py"))]


def faults(code: str, name: str) -> Iterator[str]:
    """What a module must not do, as ``name:line: what``."""
    for node in ast.walk(ast.parse(code)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        for module in modules:
            if module.split(".")[0] in PICKLES:
                yield f"{name}:{node.lineno}: imports {module}"
        if isinstance(node, ast.Call):
            for fault in call_faults(node, name):
                yield f"{name}:{node.lineno}: {fault}"


def call_faults(node: ast.Call, name: str) -> Iterator[str]:
    called = ast.unparse(node.func)
    given = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
    last = called.rpartition(".")[2]
    if called in FORBIDDEN and (Path(name).name, called) not in ALLOWED:
        yield f"calls {called}"
    if called in NEEDED:
        key, value = NEEDED[called]
        if given.get(key) != str(value):
            yield f"calls {called} without {key}={value}"
    if "shell" in given and given["shell"] != "False":
        yield f"calls {called} with a shell"
    if called == "Image.open" and "formats" not in given:
        yield "calls Image.open without formats="
    # These pass on what their caller gave.
    if last in ("from_pretrained", "from_config") and called.partition(".")[0] not in ("super()", "cls", "its_class"):
        trusted = "True" if name == RUNS_REMOTE_CODE else "False"
        if given.get("trust_remote_code") != trusted:
            yield f"calls {called} without trust_remote_code={trusted}"
        is_model = "Model" in called.partition(".")[0] or "ForConditionalGeneration" in called
        if is_model and given.get("use_safetensors") != "True":
            yield f"calls {called} without use_safetensors=True"


def test_no_module_runs_code_of_files(repository: Path) -> None:
    found = [
        fault
        for path in sources(repository)
        for fault in faults(path.read_text(encoding="utf-8"), path.relative_to(repository).as_posix())
    ]
    assert found == []


def test_no_test_reads_a_pickle(repository: Path) -> None:
    """Fixtures write some, to see them refused; what goes to worker processes goes through a pipe."""
    read = [
        f"{path.relative_to(repository)}:{node.lineno}"
        for path in sorted((repository / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module == "pickle")
        or (isinstance(node, ast.Call) and re.fullmatch(r"c?_?pickle\.(loads?|Unpickler)", ast.unparse(node.func)))
    ]
    assert read == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "yaml.load(text, Loader)",
        "eval(text)",
        "exec(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "AutoConfig.from_pretrained(folder)",
        "AutoTokenizer.from_pretrained(folder, trust_remote_code=True)",
        "AutoProcessor.from_pretrained(folder, trust_remote_code=trusted)",
        "AutoModel.from_pretrained(folder, trust_remote_code=False)",
        "DSTSmolVLMForConditionalGeneration.from_pretrained(folder, trust_remote_code=False, use_safetensors=None)",
        "SentenceTransformer(folder)",
        "Image.open(path)",
        "evaluate.load(path)",
    ],
)
def test_the_check_finds(code: str) -> None:
    assert len(list(faults(code, "module.py"))) == 1
