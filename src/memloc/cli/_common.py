"""What all commands share: one place for errors and exit codes, TOML settings, and output."""

from __future__ import annotations

import json
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import typer

from memloc.errors import DataNotFoundError, MemlocError, MemlocWarning, SpecError, nearest, typed
from memloc.progress import Console, Report, silent

_SHOWN = 200  # characters of a reason
_INTERRUPTED = "\ninterrupted; nothing is half-written: repeat the command to go on"


def settings_from(context: typer.Context, path: Path | None) -> Path | None:
    """Callback of --config: TOML keys become the defaults of the flags of the same name; flags win.

    Raises:
        SpecError: a key that is no flag. DataNotFoundError: no such file.
    """
    if path is None:
        return None
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef]
    if not path.is_file():
        raise DataNotFoundError(f"there is no settings file {str(path)!r}. Expected a TOML file. Check the path.")
    try:
        values = tomllib.loads(path.read_text())
    except (ValueError, RecursionError) as problem:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise SpecError(
            f"{path} is no valid TOML ({str(problem)[:_SHOWN]}). Expected lines such as: epochs = 100. Correct it."
        ) from problem
    parameters = {str(parameter.name): parameter for parameter in context.command.params}
    known = {
        flag.lstrip("-").replace("-", "_"): str(parameter.name)
        for parameter in context.command.params
        for flag in parameter.opts
    }
    values = {key.replace("-", "_"): value for key, value in values.items()}
    for key in values:
        if key not in known:
            raise SpecError(
                f"there is no setting {key!r} in {path}. {nearest(key, known)} Expected the name of a flag of memloc"
                f" {context.command.name}. Correct the key."
            )
        if isinstance(values[key], bool) and not getattr(parameters[known[key]], "is_flag", False):
            raise SpecError(
                f"the setting {key!r} in {path} is {str(values[key]).lower()}. Expected a number or text, since"
                f" --{key.replace('_', '-')} takes a value. Correct it."
            )
    context.default_map = {**(context.default_map or {}), **{known[key]: value for key, value in values.items()}}
    return path


def progress(as_json: bool) -> Report:
    """Progress on standard error; none under --json."""
    return silent if as_json else Console()


def emit(as_json: bool, result: dict[str, Any], text: str) -> None:
    """The result on standard output: one JSON object under --json, else text."""
    if as_json:
        from memloc.results import SCHEMA_VERSION, plain

        text = json.dumps({"schema_version": SCHEMA_VERSION, **plain(result)}, ensure_ascii=False)
    # paths may be no UTF-8
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def show_plan(as_json: bool, plan: dict[str, Any], out: Path | None = None, *inputs: str | Path | None) -> None:
    """What --dry-run says of a command: its plan, once the folder that it would write to, if any, is found fit, and
    apart from what the command reads."""
    from memloc.results import check_folder, keep_apart

    if out is not None:
        keep_apart(out, *inputs)
        check_folder(out)
    emit(as_json, plan, "\n".join(f"{key.replace('_', ' ')}: {_in_words(value)}" for key, value in plan.items()))


def _in_words(value: Any) -> str:
    """A value of a plan as people read it: settings of settings and lists on one line."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key} ({_in_words(each)})" if isinstance(each, dict) else f"{key} {_in_words(each)}"
            for key, each in value.items()
        )
    if isinstance(value, (list, tuple)):
        return ", ".join(_in_words(each) for each in value) or "none"
    return "none" if value is None else str(value)


def say(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A line for warnings of memloc, in the words of the command line; others as Python shows them."""
    text = f"warning: {message}"
    say(text if issubclass(category, MemlocWarning) else warnings.formatwarning(message, category, filename, lineno))


class _Ended(BaseException):
    """The system asks the process to end, which lets it end its own workers and its claim of a folder first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as an interrupt does."""

    def end(number: int, _frame: Any) -> None:
        raise _Ended(number)

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        known = []
    before = {number: signal.getsignal(number) for number in known}
    try:
        for number in (number for number in known if before[number] is not signal.SIG_IGN):  # as nohup asks
            signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(app: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run the command line and turn every outcome into an exit code (see docs/guide.md)."""
    command = typer.main.get_command(app)
    try:
        with warnings.catch_warnings(), typed(), _ended_in_order():
            warnings.showwarning = _show_warning
            outcome = command.main(args=arguments, prog_name="memloc", standalone_mode=False)
        if outcome == 130:  # newer versions of typer turn an interrupt into this code themselves
            say(_INTERRUPTED)
        return outcome if isinstance(outcome, int) else 0
    except MemlocError as problem:
        say(f"{type(problem).__name__}: {problem}")
        return problem.exit_code
    except _Ended as ended:
        say(f"\nended by {signal.Signals(ended.number).name}; nothing is half-written: repeat the command to go on")
        return 128 + ended.number
    except (KeyboardInterrupt, typer.Abort):
        say(_INTERRUPTED)
        return 130
    except MemoryError:
        return _without_memory()
    except OSError as problem:
        say(f"OSError: {problem}. Expected free disk and write access. Free some, then repeat the command.")
        return 1
    except Exception as problem:
        show, code = getattr(problem, "show", None), getattr(problem, "exit_code", None)
        if show is None or code is None:
            from memloc.encoders import is_out_of_memory

            if is_out_of_memory(problem):
                return _without_memory()
            raise
        show()  # a wrong call; typer carries its own copy of click's exceptions, so they are known by what they can do
        return int(code)


def _without_memory() -> int:
    say(
        "MemoryError: memory is used up. Expected the amount that --dry-run states. Pass a smaller --batch-size or"
        " --size, or free memory."
    )
    return 1
