from __future__ import annotations

import errno
import os

import pytest

from ck_mlperf.common.errors import UserError, run_main


def run(error: BaseException | None, status: int | None = None) -> int:
    def main() -> int | None:
        if error:
            raise error
        return status

    with pytest.raises(SystemExit) as exit_:
        run_main(main)
    return exit_.value.code


def test_a_user_error_is_one_message_and_status_2(capsys):
    assert run(UserError("a.jpeg: no such image")) == 2
    assert capsys.readouterr().err == "error: a.jpeg: no such image\n"


def test_a_message_says_nothing_to_the_terminal(capsys):
    run(UserError("a\x1b[2J\x9b\u202e.json:\n\tno\ud800"))
    assert capsys.readouterr().err == "error: a\ufffd[2J\ufffd\ufffd.json:\n\tno\ufffd\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ELOOP])
def test_an_error_of_the_machine_names_the_file(number, capsys):
    assert run(OSError(number, os.strerror(number), "/data/images.npy")) == 2
    assert capsys.readouterr().err == f"error: /data/images.npy: {os.strerror(number)}\n"


@pytest.mark.parametrize("status", [None, 0, 1])
def test_the_status_is_that_of_main(status):
    assert run(None, status) == (status or 0)


def test_ctrl_c_is_status_130(capsys):
    assert run(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError(errno.EBADF, "a defect")])
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error), match="a defect"):
        run_main(lambda: (_ for _ in ()).throw(error))
