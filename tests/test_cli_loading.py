"""An interrupt while packages load ends with one sentence, whatever is half loaded."""

import signal
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from tests.test_cli import interruptible, names
from tidegate.cli.app import app

BEGIN = "import os, signal, time\nfrom tidegate.cli.loading import loading\n"
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT); time.sleep(0.01)"
SENTENCE = "Interrupted; nothing was written.\n"


def run(code: str) -> tuple[int, str, str]:
    """The exit code and both outputs."""
    process = interruptible([sys.executable, "-c", BEGIN + code], stderr=subprocess.PIPE)
    return process.wait(60), *process.communicate()


def test_nobody_can_take_the_interrupt_for_a_fault_of_a_package():
    done = run(f"with loading():\n try:\n  {INTERRUPT}\n except BaseException:\n  print('lost')")
    assert done == (130, SENTENCE, "")


def test_afterwards_an_interrupt_is_what_it_was():
    done = run(f"with loading():\n pass\ntry:\n {INTERRUPT}\nexcept KeyboardInterrupt:\n print('raised')")
    assert done == (0, "raised\n", "")


@pytest.mark.parametrize("before", ["signal.SIG_IGN", "lambda *_: print('theirs')"])
def test_who_sees_to_interrupts_goes_on_to_do_so(before):
    done = run(f"signal.signal(signal.SIGINT, {before})\nwith loading():\n {INTERRUPT}\nprint('on')")
    assert done == (0, ("theirs\n" if "theirs" in before else "") + "on\n", "")


@pytest.mark.parametrize(
    ("words", "package"),
    [("--help", "typer"), ("doctor model.pt", "torch._C"), ("train data.csv --out run", "numpy"),
     ("train data.csv --out run", "torch._C"), ("train data.csv --out run", "lightning.fabric")],
)  # fmt: skip
def test_commands_that_are_interrupted_while_they_load(words, package, tmp_path):
    """Python tells of each package that it has loaded, and is interrupted at one in the middle."""
    command = [sys.executable, "-X", "importtime", "-m", "tidegate", *words.split()]
    process = interruptible(command, stderr=subprocess.PIPE, cwd=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        name = line.rpartition("|")[2].strip()
        if name == package or name.startswith(package + "."):
            break
    else:
        pytest.fail(f"{package} was not loaded")
    process.send_signal(signal.SIGINT)
    output, told = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, SENTENCE), told[-500:]
    assert "Traceback" not in told
    assert names(tmp_path) == []


def test_nobody_listens_any_more():
    """`tidegate train ... | tee log`: the interrupt ends tee, too."""
    code = (
        f"import sys\nread, write = os.pipe()\nos.dup2(write, 1)\nos.close(write)\nos.close(read)\n"
        f"with loading():\n try:\n  {INTERRUPT}\n except BaseException as e:\n  sys.stderr.write(repr(e))"
    )
    status, output, told = run(code)
    assert (status, output) == (130, "")
    assert "Error(" not in told


@pytest.mark.usefixtures("as_users_run_it")
def test_other_threads_have_their_commands():
    told = []
    thread = threading.Thread(target=lambda: told.append(CliRunner().invoke(app, ["doctor", "nothing.pt"])))
    thread.start()
    thread.join()
    assert told[0].exit_code == 2
    assert "nothing.pt" in told[0].output
