"""Progress: what TensorRT reports, as a share and as lines."""

import io
import threading

import pytest

from ck_mlperf.tensorrt.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_share_of_nested_phases():
    progress = Progress("plan", None)
    progress.start("Building", None, 2)
    assert progress.share == 0
    progress.step("Building", 0)
    assert progress.share == pytest.approx(0.5)
    progress.start("Timing", "Building", 4)
    progress.step("Timing", 0)
    assert progress.share == pytest.approx(0.5 + 0.5 / 4)
    progress.start("Kernels", "Timing", 2)
    progress.step("Kernels", 0)
    assert progress.share == pytest.approx(0.5 + 0.5 * (1 + 0.5) / 4)
    progress.finish("Kernels")
    progress.step("Timing", 3)
    assert progress.share == pytest.approx(1)
    progress.finish("Timing")
    progress.start("Again", "Building", 10)
    assert progress.share == pytest.approx(1)  # it never goes back


def test_one_line_on_a_terminal():
    terminal = Terminal()
    clock = iter((0.0, 0.2, 0.21, 0.4))  # seconds
    progress = Progress("building model.plan", terminal, clock.__next__)
    progress.start("Building", None, 3)
    for step in range(3):
        progress.step("Building", step)
    progress.close()
    text = terminal.getvalue()
    assert "\n" not in text
    assert "building model.plan:   0% Building" in text
    assert "building model.plan:  33% Building" in text
    assert "67%" not in text  # so soon after the line before
    assert "building model.plan: 100% Building" in text
    assert text.endswith("\r")


def test_a_line_for_each_part_elsewhere():
    stream = io.StringIO()
    progress = Progress("plan", stream)
    progress.start("Building", None, 3)
    for name in ("Parsing", "Optimizing", "Optimizing"):
        progress.start(name, "Building", 1)
        progress.start("deeper", name, 1)
        progress.finish("deeper")
        progress.finish(name)
    progress.close()
    assert stream.getvalue() == "plan: Building\nplan: Parsing\nplan: Optimizing\n"


def test_stop_is_asked_for():
    progress = Progress("plan", None)
    progress.start("Building", None, 5)
    assert progress.step("Building", 0) is True
    progress.stop()
    assert progress.step("Building", 1) is False


def test_reports_that_make_no_sense_do_no_harm():
    progress = Progress("plan", io.StringIO())
    progress.step("never started", 3)
    progress.finish("never started")
    progress.start("loop", "loop", 0)
    progress.step("loop", 99)
    assert 0 <= progress.share <= 1


def test_a_terminal_that_is_gone():
    terminal = Terminal()
    progress = Progress("plan", terminal)
    terminal.close()
    progress.start("Building", None, 1)
    assert progress.step("Building", 0) is True
    progress.close()


def test_reports_from_many_threads():
    progress = Progress("plan", io.StringIO())
    progress.start("Building", None, 8)

    def report(number):
        for _ in range(200):
            progress.start(f"part {number}", "Building", 3)
            progress.step(f"part {number}", 1)
            progress.finish(f"part {number}")

    threads = [threading.Thread(target=report, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    progress.step("Building", 3)
    assert progress.share == 0.5  # none of the parts is still counted
