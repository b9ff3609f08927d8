"""Functions that end badly: what is told of each, and what a program gets that asks for the value."""

from __future__ import annotations

import textwrap

from function_scripts import run_program, write
from real_stack import Stack


def test_an_exception_comes_home_with_its_traceback_and_its_own_type(stack: Stack) -> None:
    source = """
        import traceback
        from cloudsend_cli import Client
        from cloudsend_cli.errors import FunctionError

        class Diverged(ValueError):
            def __init__(self, epoch, loss):
                super().__init__(f"at epoch {epoch}")
                self.epoch, self.loss = epoch, loss
            def __reduce__(self):
                return Diverged, (self.epoch, self.loss)

        class Odd(Exception):
            def __init__(self, one, two):
                super().__init__("cannot be made again from its text")

        class Held(Exception):
            def __init__(self):
                super().__init__("holds what cannot be sent")
                self.lock = __import__("threading").Lock()

        def diverge():
            print("on the way")
            raise Diverged(3, loss=2.5)

        def odd():
            raise Odd(1, 2)

        def held():
            raise Held

        def interrupt():
            raise KeyboardInterrupt("not of this program")

        if __name__ == "__main__":
            client = Client()
            runs = [client.submit_function(f) for f in (diverge, odd, held, interrupt)]
            first, second, third, fourth = [run.wait(60)[0] for run in runs]
            assert (first.state, first.reason, first.exit_code) == ("failed", "exit 1", 1), first
            assert first.error == "Diverged: at epoch 3", first.error
            try:
                first.value()
            except Diverged as problem:
                assert (problem.epoch, problem.loss) == (3, 2.5)
                shown = traceback.format_exc()
                assert "in diverge" in shown and "raise Diverged(3, loss=2.5)" in shown, shown
                assert "program.py" in shown and "call.pyz" not in shown, shown
            else:
                raise AssertionError("nothing was raised")
            assert b"in diverge" in client.log_tail(first.id), client.log_tail(first.id)
            for result, words in ((second, "Odd: cannot be made"), (third, "Held: holds"), (fourth, "not of this")):
                try:
                    result.value()
                except FunctionError as problem:
                    assert words in str(problem) and "Traceback" in problem.context, (problem, problem.context)
                else:
                    raise AssertionError("nothing was raised")
            print("good")
    """
    assert run_program(stack, source) == "good\n"


def test_ends_from_outside_and_by_itself_are_told_apart(stack: Stack) -> None:
    source = """
        import os, signal, sys, time
        from cloudsend_cli import Client
        from cloudsend_cli.errors import FunctionError

        def killed(): os.kill(os.getpid(), signal.SIGKILL)
        def never(): time.sleep(600)
        def left(): os._exit(0)
        def three(): sys.exit(3)
        def words(): sys.exit("no licence")
        def early(): sys.exit()
        def lock(): return __import__("threading").Lock()
        def bomb():
            class Bomb:
                def __reduce__(self):
                    raise ValueError("not to be sent")
            return Bomb()

        WANTED = {
            killed: ("failed", "killed by SIGKILL", "killed by SIGKILL"),
            never: ("failed", "timeout", "timeout"),
            left: ("failed", "output-missing: .cloudsend/value", "output-missing"),
            three: ("failed", "exit 3", "ended the program with 3"),
            words: ("failed", "exit 1", "no licence"),
            lock: ("failed", "exit 1", "the value, a lock, cannot be sent"),
            bomb: ("failed", "exit 1", "not to be sent"),
        }

        if __name__ == "__main__":
            client = Client()
            keys = {"grace": "1s", "cpus": 0.1}
            runs = {f: client.submit_function(f, **keys) for f in (*WANTED, early) if f is not never}
            runs[never] = client.submit_function(never, timeout="2s", **keys)
            for function, (state, reason, told) in WANTED.items():
                result = runs[function].wait(100)[0]
                assert (result.state, result.reason) == (state, reason), result
                try:
                    result.value()
                except FunctionError as problem:
                    assert told in str(problem), (function, str(problem))
                else:
                    raise AssertionError(function)
            result = runs[early].wait(60)[0]
            assert (result.state, result.value()) == ("succeeded", None), result
            print("good")
    """
    assert run_program(stack, source) == "good\n"


def test_what_cannot_be_sent_is_an_error_before_anything_starts(stack: Stack) -> None:
    source = """
        import threading
        from cloudsend_cli import Client
        from cloudsend_cli.errors import UsageError

        LOCK = threading.Lock()

        def hold():
            return LOCK

        def plain(x):
            return x

        def refused(call, *words):
            try:
                call()
            except UsageError as problem:
                assert all(word in str(problem) for word in words), problem
            else:
                raise AssertionError(words)

        if __name__ == "__main__":
            client = Client()
            refused(lambda: client.submit_function(hold), "the function hold cannot be sent", "lock")
            refused(lambda: client.map(plain, [{"x": 1}, {"x": LOCK}]), "the arguments of plain", "lock")
            refused(lambda: client.map(plain, [1, 2]), "a point is a dict")
            refused(lambda: client.map("echo", [{"x": 1}]), "a str cannot be called")
            refused(lambda: client.map(plain, [{"x": 1}], slots={"x": [0]}), "places and its points both give 'x'")
            assert client.list_runs() == []
            print("good")
    """
    assert run_program(stack, source) == "good\n"


def test_a_generic_function_of_the_program_is_refused_with_a_way_out_that_works(stack: Stack) -> None:
    generic = """
        import functools

        @functools.singledispatch
        def tell(value):
            return "anything"

        @tell.register
        def _(value: int):
            return "a number"
    """
    write(stack.files / "generic.py", generic)
    source = f"""
        import generic
        from cloudsend_cli import Client
        from cloudsend_cli.errors import UsageError
        {textwrap.indent(textwrap.dedent(generic), "        ").lstrip()}
        if __name__ == "__main__":
            try:
                Client().submit_function(tell, [1])
            except UsageError as problem:
                assert "the function tell cannot be sent" in str(problem)
                assert "in a module" in problem.hint, problem.hint
            assert Client().list_runs() == []
            print(Client().submit_function(generic.tell, [1]).value(60))
    """
    assert run_program(stack, source) == "a number\n"


def test_nothing_of_a_machines_is_executed_before_its_value_is_asked_for(stack: Stack) -> None:
    mark = stack.files / "mark"
    source = f"""
        import os
        from cloudsend_cli import Client

        class Trap:
            def __reduce__(self):
                return os.mkdir, ({str(mark)!r},)

        def trap():
            return Trap()

        if __name__ == "__main__":
            client = Client()
            run = client.submit_function(trap)
            (result,) = run.wait(60)
            assert client.results(run.run)[0].succeeded and not result.files
            assert not result.error and not result.traceback
            assert not os.path.exists({str(mark)!r})
            result.value()
            assert os.path.exists({str(mark)!r})
            print("good")
    """
    assert run_program(stack, source) == "good\n"


def test_a_value_that_needs_what_is_not_here_says_so(stack: Stack) -> None:
    write(stack.files / "there.py", "class Thing:\n    pass\n")
    source = """
        import os, sys
        from cloudsend_cli import Client
        from cloudsend_cli.errors import FunctionError

        def make():
            import there
            return there.Thing()

        if __name__ == "__main__":
            (result,) = Client().submit_function(make).wait(60)
            os.rename("there.py", "gone.txt")
            sys.path_importer_cache.clear()
            try:
                result.value()
            except FunctionError as problem:
                assert "cannot be read here" in str(problem) and "there" in str(problem), problem
                print("good")
    """
    assert run_program(stack, source) == "good\n"


def test_words_of_a_machine_do_not_reach_a_terminal_as_commands(stack: Stack) -> None:
    source = """
        from cloudsend_cli import Client, TaskRunner
        from cloudsend_cli.errors import JobsFailed

        def escape():
            raise ValueError("\\x1b]0;owned\\x07\\x1b[2J" + "x" * 100000)

        if __name__ == "__main__":
            (result,) = Client().submit_function(escape).wait(60)
            assert "owned" in result.error and "owned" in result.traceback and len(result.error) < 5000
            assert not any(ord(c) < 32 and c != "\\n" for c in result.error + result.traceback)
            try:
                TaskRunner({"s": {"g": {"Call": escape}}}).run()
            except JobsFailed as problem:
                assert "owned" in str(problem) and "\\x1b" not in str(problem)
                print("good")
    """
    assert run_program(stack, source) == "good\n"
