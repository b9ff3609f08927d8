"""Functions of all kinds as jobs: what they are made of goes there, what they return comes home."""

from __future__ import annotations

from function_scripts import run_program, write
from real_stack import Stack


def test_closures_lambdas_classes_and_generators_of_the_users_program(stack: Stack) -> None:
    source = """
        import dataclasses, enum, functools
        from cloudsend_cli import Client

        FACTOR = 3

        class Colour(enum.Enum):
            RED = "red"

        @dataclasses.dataclass
        class Point:
            x: int
            colour: Colour = Colour.RED
            def scaled(self):
                return dataclasses.replace(self, x=self.x * FACTOR)

        class Loud(Point):
            def __call__(self, by):
                return super().scaled().x + by

        def make_adder(n):
            def add(x):
                return x + n + FACTOR
            return add

        def scale(point):
            return point.scaled()

        def count(n):
            yield from range(n)

        async def wait(x):
            return x

        def recurse(n):
            return 1 if n == 0 else n * recurse(n - 1)

        def call(function, *args, **named):
            return client.submit_function(function, args, named).value(timeout=60)

        if __name__ == "__main__":
            client = Client()
            assert call(make_adder(4), 1) == 8
            assert call(lambda x, y=2: [x, y], 1) == [1, 2]
            scaled = call(scale, Point(5))
            assert type(scaled) is Point and scaled == Point(15, Colour.RED), scaled
            assert call(Loud(2), 1) == 7
            assert call(functools.partial(recurse, 5)) == 120
            assert call(Point(1).scaled) == Point(3)
            assert call(count, 3) == [0, 1, 2]
            assert call(wait, "later") == "later"
            assert call(print, "to stdout") is None
            inner = call(make_adder, 1)
            assert inner(1) == 5
            print("all came back")
    """
    assert run_program(stack, source) == "all came back\n"


def test_local_modules_go_along_with_what_they_import(stack: Stack) -> None:
    write(stack.files / "model.py", "import threading\nfrom lib.shapes import Square\nlock = threading.Lock()\n"
          "def area(x):\n    with lock:\n        return Square(x).area()\n")  # fmt: skip
    write(stack.files / "lib" / "__init__.py", "")
    write(stack.files / "lib" / "shapes.py", """
        from . import numbers
        class Square:
            def __init__(self, side):
                self.side = side
            def __eq__(self, other):
                return self.side == other.side
            def area(self):
                return numbers.power(self.side)
    """)  # fmt: skip
    write(stack.files / "lib" / "numbers.py", "def power(x):\n    return x * x\n")
    write(stack.files / "late.py", "NAME = 'imported while it runs'\n")
    write(stack.files / "other.py", "raise SystemExit('nobody asked for this one')\n")
    source = """
        import model
        from lib.shapes import Square
        from cloudsend_cli import Client

        def use(x):
            import late, __main__, sys
            assert "other" not in sys.modules
            return model.area(x), Square(x), late.NAME

        if __name__ == "__main__":
            client = Client()
            area, square, late = client.submit_function(use, [4]).value(timeout=60)
            assert (area, late) == (16, "imported while it runs") and type(square) is Square and square == Square(4)
            assert client.map(model.area, [{"x": 2}, {"x": 3}]).values(timeout=60) == [4, 9]
            print("good")
    """
    assert run_program(stack, source) == "good\n"
    sent = {p.name for p in stack.home.glob("attempts/*/work/.cloudsend/modules/*")}
    assert sent <= {"model.py", "lib", "late.py", "__pycache__"}, sent


def test_functions_behind_a_cache_go_there_with_an_empty_one(stack: Stack) -> None:
    write(stack.files / "tables.py", "import functools\n@functools.cache\ndef look_up(x):\n    return x + 1\n")
    source = """
        import functools
        import tables
        from cloudsend_cli import Client, SubmitOptions

        @functools.lru_cache(maxsize=50, typed=True)
        def fibonacci(n):
            "As it stands."
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        fibonacci.unit = functools.partial(int, "7")

        class Shape:
            def __init__(self, side):
                self.side = side

            @functools.cache
            def area(self):
                return self.side**2

            @functools.cached_property
            def width(self):
                return self.side / 2

            @staticmethod
            @functools.lru_cache
            def name(x):
                return f"shape {x}"

        def use(shape):
            before = fibonacci.cache_info()
            found = fibonacci(30), fibonacci.unit(), fibonacci.__doc__, fibonacci.cache_parameters()
            again = shape.area(), shape.area(), shape.width, Shape.name(1), tables.look_up(2)
            return before, fibonacci.cache_info().currsize, found, again, Shape.area.cache_info().hits

        def ask(function, *args):
            run = client.submit_function(function, args, options=SubmitOptions(continue_as="cached"))
            return run, run.value(timeout=60)

        if __name__ == "__main__":
            client = Client()
            shape = Shape(3)
            first, value = ask(use, shape)
            before, size, found, again, hits = value
            assert before == (0, 0, 50, 0) and size == 31, (before, size)
            assert found == (832040, 7, "As it stands.", {"maxsize": 50, "typed": True}), found
            assert again == (9, 9, 1.5, "shape 1", 3) and hits == 1, (again, hits)
            assert fibonacci(20) == 6765 and Shape.name(2) == "shape 2"  # what is in a cache here makes no other job
            same, _ = ask(use, Shape(3))
            assert same.results()[0].id == first.results()[0].id and same.results()[0].attempt == 1
            assert ask(fibonacci, 10)[1] == 55
            assert ask(shape.area)[1] == 9
            assert ask(tables.look_up, 4)[1] == 5
            print("all came back")
    """
    assert run_program(stack, source) == "all came back\n"


def test_fifty_megabytes_come_home_and_large_arguments_go_there(stack: Stack) -> None:
    source = """
        from cloudsend_cli import Client

        def repeat(data, times):
            return data * times

        if __name__ == "__main__":
            data = bytes(range(256)) * 4096
            assert Client().submit_function(repeat, [data], {"times": 50}).value(timeout=100) == data * 50
            print(len(data) * 50)
    """
    assert run_program(stack, source) == "52428800\n"


def test_files_and_metrics_come_with_the_value_and_a_fresh_interpreter_has_its_gpus_before_any_import(
    stack: Stack,
) -> None:
    source = """
        import os
        SEEN = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        from cloudsend_cli import Client

        def train(lr, gpu):
            import os, probe
            with open("model.txt", "w") as file:
                file.write(str(lr))
            print("CLOUDSEND_METRIC loss=0.5")
            return probe.SEEN, gpu, os.environ["CLOUDSEND_SLOT"]

        if __name__ == "__main__":
            run = Client().map(train, [{"lr": 1e-3}, {"lr": 2e-4}], slots={"gpu": [6, 7]}, output="model.txt")
            one, two = run.wait(60)
            assert (one.value(), two.value()) == (("6", 6, "0"), ("7", 7, "1")), (one.value(), two.value())
            assert [path.name for path in one.files] == ["model.txt"] and one.files[0].read_text() == "0.001"
            assert (one.params, two.params) == ({"lr": "0.001"}, {"lr": "0.0002"})
            assert one.metrics == {"loss": "0.5"}
            assert one.duration > 0 and one.succeeded and not one.error
            print(SEEN)
    """
    write(stack.files / "probe.py", "import os\nSEEN = os.environ['CUDA_VISIBLE_DEVICES']\n")
    assert run_program(stack, source, CUDA_VISIBLE_DEVICES="none") == "none\n"
