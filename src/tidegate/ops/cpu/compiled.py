"""From a kernel in Python to an address: Numba compiles it once, the machine code is kept on disk, LLVM alone loads it.

The cache is a folder of files, one for each kernel; a file's name tells all that its code depends on (the sources of
this room, the versions of Numba and LLVM, the processor, the width of a vector), so that nothing ever has to be
invalidated. A file is written beside its place and moved there, begins with its own checksum, and is made anew
where that is wrong; where no folder can be written, each process compiles for itself.
"""

import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tidegate.ops.cpu.machine import Machine

__all__ = ["CACHE_VARIABLE", "cache_folder", "compile_kernel"]

#: The folder of the cache, instead of the user's own.
CACHE_VARIABLE = "TIDEGATE_CACHE_DIR"
_DIGEST = 32
_lock = threading.RLock()
_engines: list[Any] = []


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    from platformdirs import user_cache_path  # noqa: PLC0415 - needed once a process

    asked = os.environ.get(CACHE_VARIABLE)
    return Path(asked) if asked else user_cache_path("tidegate", appauthor=False)


def compile_kernel(name: str, build: Callable[[], Callable[[int], None]], machine: Machine) -> int:
    """The address of the kernel that `build` makes, from the cache if it is there: a C function of one address.

    `name` tells it from all others of this version.
    """
    with _lock:  # neither LLVM nor Numba may be entered twice
        path = cache_folder() / f"{name}-{_identity(machine)}.o"
        code = _read(path)
        if code is not None:
            with suppress(RuntimeError):  # a whole file of code that LLVM does not take: compile it again
                return _load(code, machine)
        code = _compile(build(), machine)
        _write(path, code)
        return _load(code, machine)


_SYMBOL = "tidegate_kernel"
#: Numba's functions also take where to put the result and where an exception; a kernel has neither.
_ENTRY = """
declare i32 @"{name}"(ptr, ptr, i64)
define void @{symbol}(i64 %record) {{
  %result = alloca ptr
  %exception = alloca ptr
  call i32 @"{name}"(ptr %result, ptr %exception, i64 %record)
  ret void
}}
"""


@cache
def _identity(machine: Machine) -> str:
    """All that the code of a kernel depends on, in a few letters."""
    from llvmlite import binding  # noqa: PLC0415

    told = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        told.update(source.read_bytes())
    told.update(repr((machine, binding.get_host_cpu_name(), _features(machine), sys.version_info[:2])).encode())
    told.update(repr((version("numba"), version("llvmlite"), sys.platform)).encode())
    return told.hexdigest()[:20]


def _read(path: Path) -> bytes | None:
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    code = whole[_DIGEST:]
    return code if hashlib.sha256(code).digest() == whole[:_DIGEST] else None


def _write(path: Path, code: bytes) -> None:
    with suppress(OSError):  # a cache that cannot be written is none
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            Path(beside).replace(path)
        except OSError:
            Path(beside).unlink(missing_ok=True)
            raise


def _features(machine: Machine) -> str:
    """The processor's features in LLVM's words, without those that `machine` does without."""
    from llvmlite import binding  # noqa: PLC0415

    features = binding.get_host_cpu_features()
    for name in features:
        if name.startswith(machine.without):
            features[name] = False
    return str(features.flatten())


@cache
def _target(machine: Machine) -> Any:
    """LLVM's generator of code for `machine`."""
    from llvmlite import binding  # noqa: PLC0415

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(binding.get_process_triple())
    return target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=_features(machine), opt=3, reloc="pic", codemodel="small"
    )


def _load(code: bytes, machine: Machine) -> int:
    """The address of the kernel in the object file `code`, mapped into this process for as long as it lasts."""
    from llvmlite import binding  # noqa: PLC0415

    # In one piece of memory: in a process that has much mapped (JAX beside PyTorch), code and constants otherwise came
    # to lie more than 2 GB apart, farther than the code can reach, and LLVM ended the process.
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _fresh_target(machine), use_lmm=True)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address: int = engine.get_function_address(_SYMBOL)
    if not address:
        raise RuntimeError("the kernel is not in its file")
    _engines.append(engine)
    return address


def _fresh_target(machine: Machine) -> Any:
    """A generator that an engine may own."""
    _target.cache_clear()
    return _target(machine)


def _compile(function: Callable[[int], None], machine: Machine) -> bytes:
    """The object file of a kernel."""
    from llvmlite import binding  # noqa: PLC0415

    from tidegate.ops.cpu.lowering import lower  # noqa: PLC0415 - loads Numba

    text, name = lower(function)
    module = binding.parse_assembly(text)
    module.link_in(binding.parse_assembly(_ENTRY.format(symbol=_SYMBOL, name=name)))
    for one in module.functions:
        if not one.is_declaration and one.name != _SYMBOL:
            one.linkage = "internal"
    generator = _target(machine)
    # loops are not for LLVM to turn into vector code: what there is to gain is written as vectors
    how = binding.create_pass_builder(generator, binding.PipelineTuningOptions(speed_level=3))
    how.getModulePassManager().run(module, how)
    code: bytes = generator.emit_object(module)
    return code
