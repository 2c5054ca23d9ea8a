"""Reading weights of other software: safetensors, or tensors saved with torch.save.

It is data and never code (`weights_only`). Training code wraps a network's tensors in more: a
prefix to each name (`module.`, `encoder.`), a dictionary around them; both are taken off.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ssl_pipeline.errors import UserError

WRAPPER_KEYS = ("state_dict", "model_state_dict", "network_weights", "model")


def read_network(path: Path, anchor: re.Pattern[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors, fp32, of the network that has one named `anchor`; and names of all others.

    Raises UserError where the file is unreadable, or holds none or several such networks.
    """
    tensors, left = read_tensors(path)
    ends = re.compile(rf"(?P<prefix>(.*\.)?){anchor.pattern}")
    prefixes = sorted({match["prefix"] for name in tensors if (match := ends.fullmatch(name))})
    if len(prefixes) != 1:
        found = (
            f"several ({', '.join(prefixes)})"
            if prefixes
            else f"none, such as {_first_names(tensors)}"
        )
        plain = anchor.pattern.replace("\\", "")
        raise UserError(
            f"init_from.path: of the tensors in {path} one should end with {plain}, and there are "
            f"{found}: choose another init_from.name, or save the one network that you mean."
        )
    (prefix,) = prefixes
    left += [name for name in tensors if not name.startswith(prefix)]
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n not in left}, left


def read_tensors(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a file by name, on the CPU, in fp32; and names of tensors of whole numbers.

    Raises UserError where it has no weights.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever bytes that are no weights lead a library to
        raise UserError(
            f"init_from.path: {path} cannot be read as weights alone "
            f"({' '.join(str(error).split())[:120]}): save the network's state dict as "
            "safetensors, or with torch.save(model.state_dict(), ...)."
        ) from None
    for word in WRAPPER_KEYS:
        if isinstance(content, dict) and isinstance(content.get(word), dict):
            content = content[word]
    named = content.items() if isinstance(content, dict) else ()
    every = {name: tensor for name, tensor in named if isinstance(tensor, Tensor)}
    tensors = {n: t.float() for n, t in every.items() if t.is_floating_point()}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken or not tensors:
        reason = f"{broken[0]} is not finite" if broken else "it holds no tensors by name"
        raise UserError(
            f"init_from.path: {path} cannot be used, for {reason}: choose another file."
        )
    return tensors, [name for name in every if name not in tensors]


def _first_names(tensors: dict[str, Tensor]) -> str:
    return ", ".join(sorted(tensors)[:3])
