"""torch.compile (Ansel et al. 2024), layer by layer."""

from __future__ import annotations

import os
import shutil

from torch import nn

from ecgdist.errors import ConfigError


def compile_all(*modules: nn.Module | None) -> None:
    """Compile, in place, every layer of the stacks (`nn.ModuleList`) in some modules; weights keep their names.

    A stack's layers share one compiled function, so this takes seconds where compiling a whole encoder takes a minute,
    and sizes are left open, so that no batch has it done again. The first call of a layer compiles it.

    Args:
        modules: what is compiled; None stands for a part that there is not.
    """
    stacks = [
        part
        for module in modules
        if module is not None
        for part in module.modules()
        if isinstance(part, nn.ModuleList)
    ]
    for stack in stacks:
        for layer in stack:
            layer.compile(dynamic=True)


def check_compiler() -> None:
    """Check that code for the CPU can be compiled.

    Raises:
        ConfigError: if there is no C++ compiler.
    """
    if not any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name):
        raise ConfigError(
            "engine.compile = true compiles C++ where workers have no GPU, and there is no compiler: install g++, name "
            "another one in CXX, or leave engine.compile out"
        )
