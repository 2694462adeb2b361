"""From a kernel in Python to one LLVM module, by Numba, with nothing optimised and nothing made executable on the way.

Numba makes machine code of every function that a kernel calls, and optimises it again in each of its callers. A kernel
is one function in the end, so all of that is work for nothing, and most of the time: here Numba only writes LLVM's
language, and `compiled` has LLVM optimise the whole of it once.
"""

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple, no_type_check

from numba import _dynfunc, njit, types
from numba.core import compiler
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import register_pass
from numba.core.registry import cpu_target
from numba.core.typed_passes import NativeLowering

__all__ = ["Lowered", "kernel_function", "lower"]

#: What Python would call where it called a kernel's function, which is not there: it raises `TypeError`.
_NOT_FOR_PYTHON = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value


class Lowered(NamedTuple):
    """A kernel in LLVM's language, and the name of its function there."""

    text: str
    name: str


class _Library(CPUCodeLibrary):  # type: ignore[misc]
    """A function's module, and those of all that it calls, as they were written."""

    def _optimize_functions(self, _module: Any) -> None:
        pass

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):  # type: ignore[misc]
    """Numba's pass that writes a function in LLVM's language, into a library of ours."""

    _name = "tidegate_lowering"

    @no_type_check
    def run_pass(self, state: Any) -> bool:
        context = state.targetctx
        state.library = _Library(context.codegen(), state.func_id.func_qualname)
        super().run_pass(state)
        written = state.cr.fndesc
        name = written.qualname.rpartition(".")[2]
        # callers know a function by this object
        key = _dynfunc.make_function(written.lookup_module(), name, "", _NOT_FOR_PYTHON, state.cr.env, ())
        context.insert_user_function(key, written, [state.library])
        state.cr = state.cr._replace(cfunc=key)
        return True


class _Compiler(compiler.Compiler):  # type: ignore[misc]
    """Numba's compiler, with that pass in the place of its own."""

    @no_type_check
    def __init__(
        self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any, locals: Any
    ):
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        flags.error_model = "numpy"
        flags.nrt = False
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)

    @no_type_check
    def define_pipelines(self) -> list[Any]:
        (passes,) = super().define_pipelines()
        at = next(number for number, (one, _) in enumerate(passes.passes) if one is NativeLowering)
        passes.passes[at] = (_Lowering, "lowering")
        passes.finalize()
        return [passes]


def kernel_function(function: Callable[..., Any]) -> Any:
    """A function that kernels call, of integers, vectors' addresses and other such functions."""
    return njit(pipeline_class=_Compiler)(function)


def lower(kernel: Callable[[int], None]) -> Lowered:
    """The kernel, a function of one integer, and all that it calls, in LLVM's language."""
    typing, target = cpu_target.typing_context, cpu_target.target_context
    with global_compiler_lock:
        done: Any = compiler.compile_extra(
            typing, target, kernel, (types.int64,), types.void, compiler.Flags(), {}, pipeline_class=_Compiler
        )
        done.library.finalize()
    return Lowered(str(done.library.get_llvm_str()), done.fndesc.llvm_func_name)
